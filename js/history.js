// @ts-check
/** The history of a run: the values of every step so far. */
import { api } from "../../scripts/api.js";

/**
 * @typedef {object} Message The server's message about a run; see ziplora_core/training/run_history.py.
 * @property {string} run
 * @property {string} node_id
 * @property {string} workflow
 * @property {string} kind of node
 * @property {string} title of the node
 * @property {string} state
 * @property {string} status
 * @property {number} step
 * @property {number} steps
 * @property {[number, number]} prepared
 * @property {number | null} speed steps per second; before the first step, evaluations per second
 * @property {string[]} saved
 * @property {string} folder its name among the past trainings
 * @property {boolean} continues whether it was stopped and can go on
 * @property {(number | null)[]} errors
 * @property {number[]} samples
 * @property {(string[] | null)[]} [captions] of each sample; null where they are those of the last one
 * @property {number} after
 * @property {{ step: number[] } & Record<string, (number | null)[]>} points
 * @property {[number, number]} [memory]
 */

/** @param {any} message to check for all the data that a panel shows */
export function isWhole(message) {
  const { points, samples, captions = [], saved, errors, prepared, memory = [], speed } = message;
  const columns = Object.values(points ?? {});
  const lists = [samples, captions, saved, errors, prepared, memory, ...columns];
  if (!lists.every(Array.isArray) || !Array.isArray(points?.step)) return false;
  const named = captions.filter((/** @type {unknown} */ texts) => texts !== null);
  if (!named.every(Array.isArray)) return false;
  const isNumber = (/** @type {unknown} */ value) => value === null || Number.isFinite(value);
  const numbers = [samples, errors, prepared, memory, ...columns, [speed ?? null]].flat();
  const texts = [...saved, ...named.flat(), message.run, message.state, message.status];
  return new Set(columns.map((values) => values.length)).size === 1
    && [message.step, message.steps, message.after].every(Number.isFinite)
    && numbers.every(isNumber) && texts.every((text) => typeof text === "string");
}

/** Requests the states of all runs that the server remembers. @returns {Promise<Message[]>} */
export async function readRuns() {
  return (await get("/ziplora/training")).runs ?? [];
}

/**
 * Requests the whole history of a node's last run.
 * @param {Message} run of which a state is known
 * @returns {Promise<Message | null>} null if there is none any more
 */
export async function readRun({ node_id, workflow }) {
  const query = new URLSearchParams({ workflow });
  const whole = await get(`/ziplora/training/${encodeURIComponent(node_id)}?${query}`);
  return whole.run ? { ...whole, after: 0 } : null;
}

/** @param {string} path of the server's data; an empty object if there is none (any more) */
async function get(path) {
  const answer = await api.fetchApi(path, { cache: "no-store" });
  if (answer.status === 404) return {};
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

export class History {
  /** @param {string} [run] its id */
  constructor(run = "") {
    this.run = run;
    /** @type {number[]} */
    this.steps = [];
    /** @type {Map<string, (number | null)[]>} */
    this.terms = new Map();
    /** @type {Message | null} */
    this.last = null;
  }

  /**
   * Adds a message of the server; returns false if an earlier one is missing.
   * @param {Message} message of this run
   */
  add(message) {
    if (message.after > this.#end) return false;
    while (this.#end > message.step) {
      this.steps.pop();
      for (const values of this.terms.values()) values.pop();
    }
    const { step: steps, ...terms } = message.points;
    const first = steps.findIndex((step) => step > this.#end);
    if (first >= 0) {
      for (const [term, values] of Object.entries(terms)) {
        if (!this.terms.has(term)) this.terms.set(term, this.steps.map(() => null));
        this.terms.get(term)?.push(...values.slice(first));
      }
      this.steps.push(...steps.slice(first));
    }
    this.last = message;
    return true;
  }

  /** The last step with values. */
  get #end() {
    return this.steps.at(-1) ?? 0;
  }

  /** The terms to draw. If there are several, `loss`, their sum, is left out. */
  get drawn() {
    return new Map([...this.terms].filter(([term]) => term !== "loss" || this.terms.size === 1));
  }
}
