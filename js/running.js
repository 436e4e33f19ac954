// @ts-check
/**
 * The trainings that run now, each with its panel, wherever their nodes are: so one within a subgraph
 * or in another tab is followed, and stopped, from outside.
 */
import { isWhole, readRun, readRuns } from "./history.js";
import { make } from "./panel.js";
import { TrainingPanel } from "./training_panel.js";
import { DRAWS, SEARCHES } from "./training_words.js";

/** @typedef {import("./history.js").Message} Message */

export class Running {
  /** @type {Map<string, TrainingPanel>} by workflow and node */
  #panels = new Map();
  /** @type {Set<string>} the runs whose whole histories are on their way */
  #asked = new Set();

  constructor() {
    this.element = make("div", { class: "running" });
    this.read();
  }

  /** Shows what runs, from the server's whole histories; nothing while the server is away. */
  async read() {
    for (const { element } of this.#panels.values()) element.remove();
    this.#panels.clear();
    const runs = await readRuns().catch(() => []);
    for (const run of runs) if (run.state === "running") await this.#readWhole(run);
  }

  /** @param {Message} run of which messages are missing */
  async #readWhole(run) {
    if (this.#asked.has(run.run)) return;
    this.#asked.add(run.run);
    const whole = await readRun(run).catch(() => null);
    this.#asked.delete(run.run);
    this.hear(whole);
  }

  /** @param {any} message of the server on a training */
  hear(message) {
    if (!message || !isWhole(message) || typeof message.node_id !== "string") return;
    const key = `${message.workflow}/${message.node_id}`;
    if (message.state !== "running") {
      this.#panels.get(key)?.element.remove();
      this.#panels.delete(key);
      return;
    }
    const panel = this.#panels.get(key) ?? this.#add(key, message);
    if (!panel.update(message)) this.#readWhole(message);
  }

  /**
   * @param {string} key
   * @param {Message} message
   */
  #add(key, { kind, title, node_id }) {
    const panel = new TrainingPanel(title || node_id, DRAWS.get(kind) ?? true, SEARCHES.has(kind));
    this.#panels.set(key, panel);
    this.element.append(panel.element);
    return panel;
  }
}
