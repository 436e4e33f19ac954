// @ts-check
/**
 * The trainings that run now, each with its panel, wherever their nodes are: so one within a subgraph
 * is followed, and stopped, from outside.
 */
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { isWhole } from "./history.js";
import { classOf, make, nodeOfRun } from "./panel.js";
import { TrainingPanel } from "./training_panel.js";
import { DRAWS, SEARCHES } from "./training_words.js";

/** @typedef {import("./history.js").Message} Message */

export class Running {
  constructor() {
    /** @type {Map<string, TrainingPanel>} by workflow and node */
    this.panels = new Map();
    this.element = make("div", { class: "running" });
    this.read();
  }

  /** Shows what runs, from the server's whole histories; nothing while the server is away. */
  async read() {
    for (const { element } of this.panels.values()) element.remove();
    this.panels.clear();
    const { runs = [] } = await get("/ziplora/training");
    for (const { node_id, workflow, state } of runs) if (state === "running") await this.#readOne(node_id, workflow);
  }

  /**
   * @param {string} id
   * @param {string} workflow
   */
  async #readOne(id, workflow) {
    const query = new URLSearchParams({ workflow });
    this.hear({ ...(await get(`/ziplora/training/${encodeURIComponent(id)}?${query}`)), after: 0 });
  }

  /** @param {any} message of the server on a training */
  hear(message) {
    if (!isWhole(message) || typeof message.node_id !== "string") return;
    const key = `${message.workflow}/${message.node_id}`;
    if (message.state !== "running") {
      this.panels.get(key)?.element.remove();
      this.panels.delete(key);
      return;
    }
    const panel = this.panels.get(key) ?? this.#add(key, message);
    if (!panel.update(message)) this.#readOne(message.node_id, message.workflow);
  }

  /**
   * @param {string} key
   * @param {Message} message
   */
  #add(key, { node_id, workflow }) {
    const node = workflow === app.rootGraph.id ? nodeOfRun(node_id) : undefined;
    const kind = node ? classOf(node) : "";
    const panel = new TrainingPanel(node?.title ?? node_id, DRAWS.get(kind) ?? true, SEARCHES.has(kind));
    this.panels.set(key, panel);
    this.element.append(panel.element);
    return panel;
  }
}

/** @param {string} path of the server's data; an empty object where there is none */
async function get(path) {
  try {
    const answer = await api.fetchApi(path, { cache: "no-store" });
    return answer.ok ? await answer.json() : {};
  } catch {
    return {};
  }
}
