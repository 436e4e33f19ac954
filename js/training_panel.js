// @ts-check
/** What js/training.js shows on a node: loss curves, pace, memory, pictures, and two buttons. */
import { api } from "../../scripts/api.js";
import { Chart } from "./chart.js";
import { make, makePanel, showOnNode } from "./panel.js";
import { short } from "./scales.js";

const HEIGHT = 196;
const PICTURES = 96;
const STATES = new Map([
  ["finished", "Finished."],
  ["stopped", "Stopped, and kept what was learned."],
  ["cancelled", "Cancelled. Press Run with the same inputs to go on."],
  ["failed", "It ended with an error."],
  ["rolled back", "Ended early, at the last good state:"],
]);

/**
 * @typedef {object} Message What the server says of a run; see ziplora_core/run_history.py.
 * @property {string} run
 * @property {string} node_id
 * @property {string} workflow
 * @property {string} state
 * @property {string} status
 * @property {number} step
 * @property {number} steps
 * @property {[number, number]} prepared
 * @property {number | null} speed
 * @property {string[]} saved
 * @property {(number | null)[]} errors
 * @property {number[]} samples
 * @property {number} after
 * @property {{ step: number[] } & Record<string, (number | null)[]>} points
 * @property {[number, number]} [memory]
 */

export class TrainingPanel {
  /**
   * @param {import("./panel.js").Node} node
   * @param {boolean} draws whether it draws pictures on the way
   */
  constructor(node, draws) {
    this.node = node;
    this.run = "";
    this.lost = "";
    /** Whether the connection is lost: what still comes in was said before. */
    this.away = false;
    this.asked = "";
    /** @type {number[]} */
    this.steps = [];
    /** @type {Map<string, (number | null)[]>} */
    this.terms = new Map();
    /** @type {Message | null} */
    this.last = null;
    /** @type {Message[] | null} what came while all of the run was asked for */
    this.waiting = null;
    this.chart = new Chart("Loss");
    this.numbers = make("div", { class: "line numbers" }, "Loss, pace and memory appear here.");
    this.words = make("div", { class: "line", role: "status" });
    this.legend = make("div", { class: "row numbers legend" });
    this.log = make("button", { type: "button", "aria-pressed": "true" }, "log");
    this.log.title = "Logarithmic or linear scale";
    this.log.addEventListener("click", () => this.toggleScale());
    this.stop = this.button("Stop and keep", "End now with what was learned", "stop");
    this.save = this.button("Save now", "Write the LoRA so far, and go on", "save");
    this.element = makePanel(`Training of ${node.title}`);
    this.element.append(
      this.numbers,
      this.words,
      this.chart.element,
      this.legend,
    );
    if (draws) this.element.append(this.makePictures());
    const gap = make("span", { class: "grow" });
    this.element.append(make("div", { class: "row" }, this.stop, this.save, gap, this.log));
    showOnNode(node, "training", this.element, HEIGHT + (draws ? PICTURES : 0));
  }

  /** @param {string} run begins anew, with another run's points */
  forget(run) {
    this.run = run;
    this.lost = this.asked = "";
    this.steps = [];
    this.terms = new Map();
    this.last = null;
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

  makePictures() {
    this.picture = make("img", { alt: "", draggable: "false" });
    this.picture.hidden = true;
    this.when = make("span", { class: "numbers" });
    this.scrub = make("input", { type: "range", min: "0", max: "0", class: "grow" });
    this.scrub.setAttribute("aria-label", "Sample pictures over time");
    this.scrub.disabled = true;
    this.scrub.addEventListener("input", () => this.showPicture());
    this.none = make("span", {}, "Sample pictures appear here, if any are drawn.");
    const frame = make("div", { class: "frame" }, this.picture, this.none);
    const row = make("div", { class: "row" }, this.scrub, this.when);
    return make("div", { class: "pictures" }, frame, row);
  }

  toggleScale() {
    this.chart.logarithmic = !this.chart.logarithmic;
    this.log.setAttribute("aria-pressed", String(this.chart.logarithmic));
    this.chart.redraw();
  }

  /** Takes what the server has said while all of the run was asked for. */
  arrived() {
    const messages = this.waiting ?? [];
    this.waiting = null;
    return messages;
  }

  /** @param {string} route asks the server to stop, or to save */
  async ask(route) {
    if (!this.last) return;
    const { node_id, workflow } = this.last;
    this.asked = route === "stop" ? "Stopping after this step …" : "Saving after this step …";
    this.showWords();
    try {
      const body = JSON.stringify({ node_id, workflow });
      const answer = await api.fetchApi(`/ziplora/${route}`, { method: "POST", body });
      if (answer.status === 404) this.asked = "It has ended already.";
      else if (!answer.ok) this.asked = `The server refuses it (${answer.status}).`;
    } catch {
      this.asked = "The server does not answer.";
    }
    this.showWords();
  }

  /**
   * Takes over what the server says; false when something before it is missing.
   * @param {Message} message
   */
  update(message) {
    if (message.run !== this.run) {
      if (message.after > 0) return false;
      this.forget(message.run);
    }
    if (message.after > (this.steps.at(-1) ?? 0)) return false;
    while ((this.steps.at(-1) ?? 0) > message.step) {
      this.steps.pop();
      for (const values of this.terms.values()) values.pop();
    }
    const { step: steps, ...terms } = message.points;
    const first = steps.findIndex((step) => step > (this.steps.at(-1) ?? 0));
    if (first >= 0) {
      for (const [term, values] of Object.entries(terms)) {
        if (!this.terms.has(term)) this.terms.set(term, this.steps.map(() => null));
        this.terms.get(term)?.push(...values.slice(first));
      }
      this.steps.push(...steps.slice(first));
    }
    const before = this.last?.saved.at(-1);
    const file = message.saved.at(-1);
    const refused = message.status !== this.last?.status && message.status.startsWith("WARNING");
    if (message.state !== "running" || (file && file !== before) || refused) this.asked = "";
    this.last = message;
    this.lost = "";
    this.show();
    return true;
  }

  show() {
    const message = this.last;
    if (!message) return;
    const shown = new Map(this.terms);
    if (shown.size > 1) shown.delete("loss"); // the sum of the others
    if (this.steps.length) {
      this.chart.name = "Loss";
      this.chart.show(this.steps, shown);
    } else if (message.errors.length) {
      this.chart.name = "Error of the layers' own outputs after each pass";
      this.chart.show(message.errors.map((_, pass) => pass), new Map([["error", message.errors]]));
    } else {
      this.chart.show([], new Map());
    }
    this.legend.replaceChildren(...[...this.chart.terms.keys()].map((term) => this.name(term)));
    this.numbers.textContent = this.pace(message);
    this.stop.disabled = this.save.disabled = this.away || message.state !== "running";
    this.save.disabled ||= message.steps === 0;
    this.showWords();
    this.offerPictures(message.samples);
  }

  /** @param {string} term its colour, name and mean */
  name(term) {
    const swatch = make("i", { "aria-hidden": "true" });
    swatch.style.background = this.chart.colour(term);
    const latest = this.chart.steps === this.steps ? this.chart.latest(term) : this.last?.errors.at(-1);
    const value = latest === null || latest === undefined ? "–" : short(latest);
    return make("span", {}, swatch, `${term} ${value}`);
  }

  /** @param {Message} message */
  pace({ state, step, steps, prepared, speed, memory }) {
    const parts = [];
    if (steps && (step || state !== "running")) parts.push(`step ${step} of ${steps}`);
    else if (prepared[1]) parts.push(`preparing ${Math.floor((100 * prepared[0]) / prepared[1])} %`);
    else parts.push("starting");
    if (speed) parts.push(speed >= 1 ? `${short(speed)} steps/s` : `${short(1 / speed)} s/step`);
    if (state === "running") {
      if (speed && step < steps) parts.push(`${duration((steps - step) / speed)} left`);
      if (memory) parts.push(`${memory.map(gigabytes).join(" of ")} GB in use`);
    }
    return parts.join(" · ");
  }

  showWords() {
    const message = this.last;
    const said = [];
    if (this.away && message?.state === "running") said.push("The server does not answer; waiting for it.");
    else if (this.lost) said.push(this.lost);
    else if (message) {
      if (this.asked) said.push(this.asked);
      if (message.saved.length) said.push(`Saved as ${message.saved.at(-1)}.`);
      if (STATES.has(message.state)) said.push(STATES.get(message.state));
      if (message.status) said.push(message.status);
    }
    const text = said.join(" ");
    if (this.words.textContent !== text) this.words.textContent = this.words.title = text;
  }

  /** @param {number[]} samples the steps that there are pictures of */
  offerPictures(samples) {
    const { scrub, picture, none } = this;
    if (!scrub || !picture || !none) return;
    const follow = Number(scrub.value) === Number(scrub.max);
    scrub.max = String(Math.max(0, samples.length - 1));
    if (follow) scrub.value = scrub.max;
    scrub.disabled = samples.length < 2;
    picture.hidden = samples.length === 0;
    none.hidden = samples.length > 0;
    this.showPicture();
  }

  showPicture() {
    const { scrub, picture, when, last: message } = this;
    if (!scrub || !picture || !when || !message) return;
    const step = message.samples[Number(scrub.value)];
    when.textContent = step === undefined ? "" : `step ${step}`;
    scrub.setAttribute("aria-valuetext", when.textContent);
    if (step === undefined) return;
    const place = `/ziplora/training/${encodeURIComponent(message.node_id)}/samples/${step}`;
    const which = new URLSearchParams({ workflow: message.workflow, run: message.run });
    const source = api.apiURL(`${place}?${which}`);
    if (picture.getAttribute("src") !== source) picture.setAttribute("src", source);
    picture.alt = `Sample pictures of step ${step}`;
  }

  /** @param {boolean} away whether the connection is lost */
  setAway(away) {
    this.away = away;
    this.show();
  }

  /** @param {string} words until the server says more */
  say(words) {
    this.lost = words;
    this.showWords();
  }

  /** @param {string} words why a run that went on cannot be followed any more */
  lose(words) {
    if (this.last?.state !== "running") return;
    this.stop.disabled = this.save.disabled = true;
    this.say(words);
  }

  remove() {
    this.chart.remove();
  }
}

/** @param {number} seconds */
function duration(seconds) {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.round((whole % 3600) / 60)} min`;
}

/** @param {number} bytes */
function gigabytes(bytes) {
  return (bytes / 2 ** 30).toFixed(1);
}
