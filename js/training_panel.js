// @ts-check
/** The training panel of a node: loss curves, speed, memory, sample images, and two buttons. */
import { api } from "../../scripts/api.js";
import { Chart } from "./chart.js";
import { History } from "./history.js";
import { fill, make, makePanel, showOnNode, zoomThrough } from "./panel.js";
import { goOn } from "./past_data.js";
import { SamplePictures } from "./sample_pictures.js";
import { short } from "./chart_axes.js";
import { say } from "./translations.js";
import { pace, SEARCH, TRAINING } from "./training_words.js";

const HEIGHT = 260;
const PICTURES = 144;
/** The height that a search saves: it has no chart. */
const CHART = 110;
const STATES = new Map([
  ["finished", "Finished."],
  ["cancelled", "Cancelled."],
  ["failed", "Ended with an error."],
  ["rolled back", "Ended early, at the last good state."],
]);

/** @typedef {import("./history.js").Message} Message */

export class TrainingPanel {
  /**
   * @param {import("./panel.js").Node | string} node that shows the panel, or the title of one that is elsewhere
   * @param {boolean} draws whether the training draws sample images
   * @param {boolean} searches whether it is a search, which has no loss and nothing to save
   */
  constructor(node, draws, searches) {
    this.says = searches ? SEARCH : TRAINING;
    this.searches = searches;
    this.history = new History();
    /** @type {History | null} what is shown after *Continue* until the run that goes on has values */
    this.before = null;
    this.lost = "";
    /** Whether the connection is lost. Messages that still arrive are older than the loss. */
    this.away = false;
    this.asked = "";
    /** @type {Message[] | null} messages received while the whole history was requested */
    this.waiting = null;
    this.chart = new Chart(say("Loss"));
    this.chart.element.addEventListener("palette", () => this.showLegend());
    this.numbers = make("div", { class: "numbers" });
    this.words = make("div", { role: "status" });
    this.legend = make("div", { class: "row numbers legend" });
    this.log = make("button", { type: "button", "aria-pressed": "true" }, say("log scale"));
    this.log.title = say("Logarithmic scale: equal distances are equal ratios. Press for a linear one.");
    this.log.addEventListener("click", () => this.toggleScale());
    this.stop = this.button(say("Stop and keep"), say(this.says.end), "stop");
    this.save = this.button(say("Save now"), say("Save the current LoRA and continue"), "save");
    this.more = make("button", { type: "button", title: say("Train on, from where it ended to its last step") }, say("Continue"));
    this.more.hidden = true;
    this.more.addEventListener("click", () => this.continue());
    this.pictures = draws ? new SamplePictures(searches) : null;
    const gap = make("span", { class: "grow" });
    this.element = makePanel(say(this.says.empty));
    this.element.append(
      make("div", { class: "head" }, this.numbers, this.words),
      this.chart.element,
      this.legend,
      ...(this.pictures ? [this.pictures.element] : []),
      make("div", { class: "row" }, this.stop, this.more, this.save, gap, this.log),
    );
    for (const part of [this.chart.element, this.legend, this.save, this.log]) part.hidden = searches;
    const height = HEIGHT + (draws ? PICTURES : 0) - (searches ? CHART : 0);
    if (typeof node !== "string") showOnNode(node, "training", this.says.title, this.element, height);
    else {
      this.element.removeEventListener("wheel", zoomThrough); // it scrolls with the rest
      this.element.style.minHeight = `${height}px`;
      this.element.setAttribute("aria-label", say(this.says.title, { title: node }));
      this.element.prepend(make("h3", {}, node));
    }
  }

  /** @param {string} [run] the id of the run to start over with */
  forget(run) {
    this.history = new History(run);
    this.lost = this.asked = "";
  }

  /**
   * @param {string} label
   * @param {string} title
   * @param {string} route
   */
  button(label, title, route) {
    const button = make("button", { type: "button", title }, label);
    button.disabled = true;
    button.addEventListener("click", () => this.ask(route));
    return button;
  }

  toggleScale() {
    this.chart.logarithmic = !this.chart.logarithmic;
    this.log.setAttribute("aria-pressed", String(this.chart.logarithmic));
    this.showLegend();
    this.chart.redraw();
  }

  /** Returns the messages received while the whole history was requested. */
  arrived() {
    const messages = this.waiting ?? [];
    this.waiting = null;
    return messages;
  }

  /** @param {string} route of the request to the server: stop or save */
  async ask(route) {
    const { last } = this.history;
    if (!last) return;
    if (route === "save") this.asked = say("Saving after this step …");
    else this.asked = say(last.steps ? this.says.ending : "Stopping after this pass …");
    this.showWords();
    try {
      const body = JSON.stringify({ node_id: last.node_id, workflow: last.workflow });
      const answer = await api.fetchApi(`/ziplora/${route}`, { method: "POST", body });
      if (answer.status === 404) this.asked = say("The run has already ended.");
      else if (!answer.ok) {
        this.asked = say("The server refused the request ({status}).", { status: answer.status });
      }
    } catch {
      this.asked = say("The server does not answer.");
    }
    this.showWords();
  }

  /** Queues the stopped training again. */
  async continue() {
    const { history } = this;
    if (!history.last) return;
    this.more.disabled = true; // until the server has answered: one press, one run
    this.before = history;
    try {
      const step = await goOn(history.last.folder);
      if (this.history === history) this.asked = say("Queued; it trains on from step {step}.", { step }); // not begun yet
      this.more.hidden = true; // another press would train it once more
    } catch (error) {
      this.asked = error instanceof Error ? error.message : String(error);
    }
    this.more.disabled = false;
    this.showWords();
  }

  /**
   * Shows a message of the server; returns false if an earlier one is missing.
   * @param {Message} message
   */
  update(message) {
    if (message.run !== this.history.run) {
      if (message.after > 0) return false;
      this.forget(message.run);
    }
    const before = this.history.last;
    if (!this.history.add(message)) return false;
    const saved = message.saved.length > 0 && message.saved.at(-1) !== before?.saved.at(-1);
    const refused = message.status.startsWith("WARNING: not saved.");
    if (message.state !== "running" || saved || refused) this.asked = "";
    this.lost = "";
    this.show();
    return true;
  }

  /** The history with the curves to show. */
  get shown() {
    return this.history.steps.length ? this.history : this.before ?? this.history;
  }

  show() {
    const { steps, drawn } = this.shown;
    const { last: message } = this.history;
    if (!message) return;
    if (this.history.steps.length) this.before = null;
    fill(this.element);
    if (steps.length || !message.errors.length) {
      [this.chart.name, this.chart.unit] = [say("Loss"), "step"];
      this.chart.show(steps, drawn);
    } else {
      [this.chart.name, this.chart.unit] = [say("Error of the predictions, as a share of the direct merge's"), "pass"];
      this.chart.show(message.errors.map((_, pass) => pass), new Map([["error", message.errors]]));
    }
    this.log.hidden = this.searches || this.chart.few;
    this.showLegend();
    this.numbers.textContent = this.numbers.title = pace(message, this.says);
    this.stop.disabled = this.save.disabled = this.away || message.state !== "running";
    this.save.disabled ||= message.steps === 0;
    this.more.hidden = !message.continues;
    this.stop.hidden = message.continues;
    this.showWords();
    if (!this.before) this.pictures?.offer(message);
  }

  showLegend() {
    this.legend.replaceChildren(...[...this.chart.terms.keys()].map((term) => this.name(term)));
  }

  /** @param {string} term to show with its colour, name and mean */
  name(term) {
    const swatch = make("i", { "aria-hidden": "true" });
    swatch.style.background = this.chart.colour(term);
    const latest = this.shown.steps.length ? this.chart.latest(term) : this.history.last?.errors.at(-1);
    const value = latest === null || latest === undefined ? "–" : short(latest);
    const where = this.chart.unseen().has(term) ? ` (${say("below the chart")})` : "";
    return make("span", {}, swatch, `${say(term)} ${value}${where}`);
  }

  showWords() {
    const message = this.history.last;
    const said = [];
    if (this.away && message?.state === "running") {
      said.push(say("The server does not answer; waiting for it."));
    } else if (this.lost) said.push(this.lost);
    else if (message) {
      const { state, step, saved, status } = message;
      said.push(this.asked, say(state === "stopped" ? this.says.stopped : STATES.get(state) ?? ""));
      if (state === "cancelled" && step && !this.searches) said.push(say("Press Run with the same inputs to continue."));
      if (saved.length) {
        const files = saved.reduce((file, other) => say("{file} and {other}", { file, other }));
        said.push(say("Saved as {files}.", { files }));
      }
      if (state !== "stopped") said.push(status);
    }
    const text = said.filter(Boolean).map((words) => words.replace(/[.。]$/, "")).join(" · ");
    if (this.words.textContent !== text) this.words.textContent = this.words.title = text;
  }

  /** @param {boolean} away whether the connection is lost */
  setAway(away) {
    this.away = away;
    this.show();
  }

  /** @param {string} words to show until the next message */
  warn(words) {
    this.lost = words;
    this.showWords();
  }

  /** @param {string} words the reason why a running training can no longer be followed */
  lose(words) {
    if (this.history.last?.state !== "running") return;
    this.stop.disabled = this.save.disabled = true;
    this.warn(words);
  }
}
