// @ts-check
/** What is said of a past training: its name, how it ended, when, and how long it took. */
import { language, say } from "./translations.js";
import { duration } from "./training_words.js";

/** @typedef {import("./past_data.js").Entry} Entry */

const STATES = new Map([
  ["running", "is running"],
  ["finished", "finished"],
  ["stopped", "stopped and kept"],
  ["cancelled", "cancelled"],
  ["failed", "ended with an error"],
  ["rolled back", "ended early"],
  ["cut short", "cut short"],
]);

/** @param {Entry} entry */
export function titleOf({ title, method, name }) {
  return title.trim().split(/\s+/).join(" ") || method || name;
}

/**
 * Says what it was and how far it came.
 * @param {Entry} entry
 */
export function how({ method, state, step, steps }) {
  const far = steps ? say("step {step} of {steps}", { step, steps }) : "";
  return [method, far, say(STATES.get(state) ?? state)].filter(Boolean).join(" · ");
}

/**
 * Says when it ended, how much room it takes and, if asked, how long it took.
 * @param {Entry} entry
 * @param {boolean} [long]
 */
export function when({ ended, seconds, bytes }, long = true) {
  const date = new Date(1000 * ended).toLocaleString(language(), { dateStyle: "medium", timeStyle: "short" });
  return [date, long && seconds >= 1 ? duration(seconds) : "", size(bytes)].filter(Boolean).join(" · ");
}

/** @param {number} bytes */
function size(bytes) {
  if (bytes >= 1e9) return `${(bytes / 1e9).toFixed(1)} GB`;
  return bytes >= 1e6 ? `${(bytes / 1e6).toFixed(1)} MB` : `${Math.ceil(bytes / 1e3)} kB`;
}
