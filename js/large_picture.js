// @ts-check
/** A picture of a panel in the size of the window, alone or compared with another one of its kind. */
import { Divider } from "./divider.js";
import { make } from "./panel.js";
import { Strip } from "./strip.js";
import { say } from "./translations.js";

/** @typedef {import("./strip.js").Shown} Shown */

/**
 * @typedef {object} Choice What can be shown.
 * @property {Shown[]} all
 * @property {number} at the place of the one that is asked for
 * @property {number} other the place of the one to compare it with first
 */

const MODES = [["one", "One"], ["divider", "Divider"], ["beside", "Side by side"]];
/** The shape, width by height, from which two pictures are put one below the other. */
const WIDE = 1.4;

/**
 * Lets a click, or Enter, show a picture large; another click, or Escape, closes it.
 * @param {HTMLImageElement} picture
 * @param {() => Choice} look returns what can be shown at that time
 */
export function opensLarge(picture, look) {
  picture.tabIndex = 0;
  picture.setAttribute("role", "button");
  picture.title = say("Click to see it large");
  picture.addEventListener("click", () => openLarge(look()));
  picture.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    openLarge(look());
  });
}

/**
 * Shows pictures in the size of the window.
 * @param {Choice} choice
 * @param {string} [mode] the first of `MODES` to show
 */
export function openLarge(choice, mode = "one") {
  const dialog = make("dialog", { class: "ziplora-large" });
  dialog.append(...new LargeView(choice, mode, () => dialog.close()).elements);
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    if (event.key !== "Escape") return;
    event.preventDefault();
    event.stopPropagation();
    dialog.close();
  };
  window.addEventListener("keydown", onKey, true); // the frontend keeps Escape from the dialog
  dialog.addEventListener("keydown", (event) => event.stopPropagation()); // its other keys change the workflow
  dialog.addEventListener("click", ({ target }) => {
    if (target === dialog) dialog.close();
  });
  dialog.addEventListener("close", () => {
    window.removeEventListener("keydown", onKey, true);
    dialog.remove();
  });
  document.body.append(dialog);
  dialog.showModal();
}

class LargeView {
  /**
   * @param {Choice} choice
   * @param {string} mode
   * @param {() => void} close
   */
  constructor({ all, at, other }, mode, close) {
    this.all = all;
    this.close = close;
    this.left = this.#list(say("Left picture"), other);
    this.right = this.#list(say("Right picture"), at);
    this.view = make("div", { class: "view" });
    this.buttons = new Map(MODES.map(([name, label]) => [name, this.#button(name, label)]));
    const closing = make("button", { type: "button", title: say("Close"), "aria-label": say("Close") }, "✕");
    closing.addEventListener("click", close);
    const modes = make("div", { class: "row", role: "group" }, ...this.buttons.values());
    modes.hidden = all.length < 2;
    const bar = make("div", { class: "bar" }, this.left, make("span"), modes, make("span"), this.right, closing);
    this.elements = [bar, this.view];
    this.show(mode);
  }

  /** @param {string} mode */
  show(mode) {
    this.mode = mode;
    const [before, after] = [this.left, this.right].map(({ selectedIndex }) => this.all[selectedIndex]);
    this.left.hidden = mode === "one";
    for (const [name, button] of this.buttons) button.setAttribute("aria-pressed", String(name === mode));
    this.view.classList.toggle("beside", mode === "beside");
    if (mode === "divider") this.#put(new Divider(before, after).element);
    else if (mode === "beside") this.#put(this.#strip(before).element, this.#strip(after).element);
    else this.#showOne(after);
  }

  /** @param {Shown} shown */
  #showOne(shown) {
    const strip = this.#strip(shown);
    strip.picture.addEventListener("click", this.close);
    strip.picture.classList.add("closes");
    this.#put(strip.element);
  }

  /** @param {Shown} shown */
  #strip(shown) {
    const strip = new Strip();
    strip.show(shown);
    if (this.mode === "beside") strip.element.prepend(make("figcaption", {}, shown.name));
    strip.picture.addEventListener("load", () => {
      const { naturalWidth, naturalHeight } = strip.picture;
      this.view.classList.toggle("wide", naturalWidth > WIDE * naturalHeight);
    });
    return strip;
  }

  /** @param {...Element} figures */
  #put(...figures) {
    this.view.replaceChildren(...figures.map((figure) => make("div", { class: "frame" }, figure)));
  }

  /**
   * @param {string} label
   * @param {number} at
   */
  #list(label, at) {
    const list = make("select", { "aria-label": label });
    list.append(...this.all.map(({ name }) => make("option", {}, name)));
    list.selectedIndex = at;
    list.disabled = this.all.length < 2;
    list.addEventListener("change", () => this.show(this.mode ?? "one"));
    return list;
  }

  /**
   * @param {string} name of the mode
   * @param {string} label
   */
  #button(name, label) {
    const button = make("button", { type: "button" }, say(label));
    button.addEventListener("click", () => this.show(name));
    return button;
  }
}
