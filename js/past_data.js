// @ts-check
/** Past trainings as the server keeps them. */
import { api } from "../../scripts/api.js";
import { say } from "./translations.js";

/**
 * @typedef {object} Entry A training in the list; see ziplora_core/training/past_list.py.
 * @property {string} name
 * @property {string} method
 * @property {string} title
 * @property {string} state
 * @property {number} step
 * @property {number} steps
 * @property {number} started seconds since 1970
 * @property {number} ended
 * @property {number} seconds of training
 * @property {number} bytes on the disk
 * @property {string[]} files
 * @property {Record<string, number>} saved_at the steps of those of which it is known
 * @property {number[]} samples the steps that have sample images
 * @property {boolean} continues whether it can go on
 * @property {boolean} recorded
 */
/** @typedef {{ node: string, input: string, value: string | number | boolean }} Setting */
/**
 * @typedef {Entry & {
 *   points: { step: number[] } & Record<string, (number | null)[]>,
 *   errors: (number | null)[], settings: Setting[], status: string,
 * }} Details
 */
/** @typedef {{ prompt: any, workflow: any }} Queued */

/**
 * @param {string} name of a training
 * @param {string} [part] of it
 */
export function pathOf(name, part = "") {
  return `/ziplora/past/${encodeURIComponent(name)}${part && `/${part}`}`;
}

/** @returns {Promise<Entry[]>} the last used one first */
export async function list() {
  return (await ask("/ziplora/past")).trainings;
}

/**
 * @param {string} name
 * @returns {Promise<Details>}
 */
export function details(name) {
  return ask(pathOf(name));
}

/**
 * Deletes a training's record and checkpoint.
 * @param {string} name
 */
export function remove(name) {
  return ask(pathOf(name), { method: "DELETE" });
}

/**
 * Returns what was queued.
 * @param {string} name
 * @returns {Promise<Queued>}
 */
export function queued(name) {
  return ask(pathOf(name, "request"));
}

/**
 * Queues a training again, which goes on from its checkpoint, and what depends on it: nothing else
 * of the workflow runs.
 * @param {string} name
 * @returns {Promise<number>} the step that it goes on from
 */
export async function goOn(name) {
  const refused = say("It runs already, or what it would go on from is not kept.");
  const answer = await ask(pathOf(name, "continue"), { method: "POST" }, refused);
  const { prompt, workflow, node_id: node, step } = answer;
  const partialExecutionTargets = outputsAfter(prompt, node);
  await api.queuePrompt(0, { output: prompt, workflow }, { partialExecutionTargets });
  return step;
}

/**
 * Returns the output nodes of a prompt for which a node has to run, itself included.
 * @param {Record<string, { class_type: string, inputs: Record<string, unknown> }>} prompt
 * @param {string} node
 */
function outputsAfter(prompt, node) {
  const known = new Map([[node, true]]); // whether each needs it
  const needs = (/** @type {string} */ id) => {
    if (!known.has(id)) {
      known.set(id, false); // in case it depends on itself
      const links = Object.values(prompt[id]?.inputs ?? {}).filter(Array.isArray);
      known.set(id, links.some(([from]) => needs(from)));
    }
    return known.get(id);
  };
  const { registered_node_types: types } = /** @type {any} */ (window).LiteGraph;
  const isOutput = (/** @type {string} */ id) => types[prompt[id]?.class_type]?.nodeData?.output_node;
  return Object.keys(prompt).filter((id) => isOutput(id) && needs(id));
}

/**
 * @param {string} path
 * @param {RequestInit} [options]
 * @param {string} [refused] what a refusal means
 * @throws an error with words for the person
 */
async function ask(path, options = {}, refused = say("A training that runs is not deleted.")) {
  let answer;
  try {
    answer = await api.fetchApi(path, { cache: "no-store", ...options });
  } catch {
    throw new Error(say("The server does not answer."));
  }
  if (answer.ok) return answer.json();
  if (answer.status === 404) throw new Error(say("This training is not kept any more."));
  if (answer.status === 409) throw new Error(refused);
  throw new Error(say("The server refused the request ({status}).", { status: answer.status }));
}
