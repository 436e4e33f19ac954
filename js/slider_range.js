// @ts-check
/** The range that a slider was trained for: of a file, or of the LoRA that the node has run with. */
import { api } from "../../scripts/api.js";
import { say } from "./translations.js";

const OUTPUT = "ziplora_slider_range";

/** @typedef {[number, number] | null} Range */
/** @typedef {{ range: Range, why: string }} Known the range, or the reason why there is none */

/** The reason where there is nothing to read. */
export const NO_FILE = "No file is chosen, so the trained range is unknown";

/**
 * Asks the server for the range of a file.
 * @param {string} file
 * @returns {Promise<Known>}
 */
export async function rangeOfFile(file) {
  const unknown = "The file does not say how far it was trained to be moved.";
  try {
    const answer = await api.fetchApi(`/ziplora/slider?${new URLSearchParams({ name: file })}`);
    const { range, why } = await answer.json();
    return { range: isRange(range) ? range : null, why: say(String(why ?? unknown)) };
  } catch {
    return { range: null, why: say("The trained range could not be read from the server.") };
  }
}

/**
 * Returns the range in a node's output.
 * @param {any} output
 * @returns {Known | null} null for an output without one
 */
export function rangeOfOutput(output) {
  const said = output?.[OUTPUT];
  if (!Array.isArray(said)) return null;
  const [range] = said;
  const why = say("The LoRA does not say how far it was trained to be moved.");
  return { range: isRange(range) ? range : null, why };
}

/**
 * @param {any} range
 * @returns {range is [number, number]}
 */
function isRange(range) {
  return Array.isArray(range) && range.length === 2 && range.every(Number.isFinite);
}
