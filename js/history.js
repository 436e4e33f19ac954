// @ts-check
/** The history of a run: the values of every step so far. */

/**
 * @typedef {object} Message The server's message about a run; see ziplora_core/training/run_history.py.
 * @property {string} run
 * @property {string} node_id
 * @property {string} workflow
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
