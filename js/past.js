// @ts-check
/** The sidebar tab with past trainings: their list, one of them, or two side by side. */
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { make } from "./panel.js";
import { compared } from "./past_compare.js";
import { details, list } from "./past_data.js";
import { bell } from "./past_bell.js";
import { listed } from "./past_list.js";
import { Running } from "./running.js";
import { shown } from "./past_run.js";
import { addStyle } from "./style.js";
import { say } from "./translations.js";

const ID = "ziplora.past";
/** Milliseconds from the end of a training until the list is read again: its LoRA is saved first. */
const PAUSE = 1500;

class PastTab {
  /** @param {HTMLElement} place where the frontend shows the tab */
  constructor(place) {
    addStyle();
    /** @type {string[]} names of the trainings that are chosen for comparison, two at most */
    this.chosen = [];
    this.back = iconButton("pi-arrow-left", say("All past trainings"), () => this.showList());
    this.words = make("div", { role: "status" });
    this.view = make("div", { class: "view" });
    this.running = new Running();
    const title = make("h2", { class: "grow" }, say("Past trainings"));
    const again = iconButton("pi-refresh", say("Read the list again"), () => {
      this.running.read();
      this.showList();
    });
    const head = make("div", { class: "row" }, this.back, title, bell((words) => this.tell(words)), again);
    this.element = make("div", { class: "ziplora-panel past", role: "region" }, head, this.running.element, this.words, this.view);
    this.element.setAttribute("aria-label", say("Past trainings"));
    place.append(this.element);
    this.showList();
  }

  /** @param {string} words on what was done, or could not be done */
  tell(words) {
    this.words.textContent = words;
  }

  /**
   * Shows something once the server has sent it; what is asked for later replaces it.
   * @param {() => Promise<(Element | string)[]>} make
   * @param {boolean} isList
   */
  async #show(make, isList) {
    const asked = Symbol("asked");
    this.asked = asked;
    this.tell("");
    try {
      const parts = await make();
      if (this.asked !== asked) return;
      this.view.replaceChildren(...parts);
    } catch (error) {
      if (this.asked === asked) this.tell(error instanceof Error ? error.message : String(error));
      return;
    }
    this.isList = isList;
    this.back.hidden = isList;
    this.element.scrollTop = 0;
  }

  showList() {
    return this.#show(async () => listed(await list(), this.chosen, {
      open: (name) => this.showOne(name),
      compare: () => this.compare(),
    }), true);
  }

  /** @param {string} name */
  showOne(name) {
    return this.#show(async () => shown(await details(name), {
      tell: (words) => this.tell(words),
      leave: async (words) => {
        await this.showList();
        this.tell(words);
      },
    }), false);
  }

  compare() {
    return this.#show(async () => {
      const [one, other] = await Promise.all(this.chosen.map(details));
      return compared(one, other);
    }, false);
  }

  /** @param {any} event of a training */
  hear({ detail }) {
    this.running.hear(detail);
    if (detail?.state === "running" || !this.isList) return;
    clearTimeout(this.soon);
    this.soon = setTimeout(() => this.isList && this.showList(), PAUSE);
  }
}

/**
 * @param {string} icon of PrimeIcons, which the frontend has
 * @param {string} title
 * @param {() => void} act
 */
function iconButton(icon, title, act) {
  const button = make("button", { type: "button", title, "aria-label": title });
  button.append(make("i", { class: `pi ${icon}`, "aria-hidden": "true" }));
  button.addEventListener("click", act);
  return button;
}

/** @type {PastTab | null} */
let open = null;
const events = /** @type {EventTarget} */ (api); // its type only lists the frontend's own events
events.addEventListener("ziplora.training", (event) => open?.hear(/** @type {any} */ (event)));

app.registerExtension({
  name: ID,
  setup() {
    api.addEventListener("reconnected", () => open?.running.read());
    app.extensionManager.registerSidebarTab({
      id: ID,
      icon: "pi pi-history",
      title: say("Past trainings"),
      tooltip: say("Past trainings"),
      type: "custom",
      render: (place) => {
        open = new PastTab(place);
      },
      destroy: () => {
        open?.element.remove();
        open = null;
      },
    });
  },
});
