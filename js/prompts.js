// @ts-check
/**
 * The prompts that an output leads to: by CLIP to the nodes that encode them, by MODEL to a sampler's
 * positive conditioning. Negative prompts are left out.
 */
import { sourceOf, targetsOf } from "./links.js";

/** What is followed from node to node. */
const FOLLOWED = ["CLIP", "MODEL", "MERGED_LORA"];
const ENCODED = "CONDITIONING";
/** The frontend's name of a text area. */
const TEXT = "customtext";
const MUTED = 2;

/**
 * @typedef {object} Prompt
 * @property {any} node that shows the text
 * @property {any} widget that holds it
 */

/**
 * Finds the prompts that an output of a node leads to.
 * @param {any} start
 * @param {number} output its slot
 * @returns {Prompt[]}
 */
export function promptsOf(start, output) {
  const encoders = new Set();
  const seen = new Set([start]);
  const pending = targetsOf(start, output);
  for (const { node, slot } of pending) {
    const { type } = node.inputs[slot] ?? {};
    if (node.mode === MUTED) continue;
    if (type === "CLIP" && encodes(node)) {
      if (!isNegative(node)) encoders.add(node);
      continue;
    }
    for (const encoder of positives(node, type)) encoders.add(encoder);
    if (seen.has(node)) continue;
    seen.add(node);
    for (const [n, given] of (node.outputs ?? []).entries()) {
      if (FOLLOWED.includes(given.type)) pending.push(...targetsOf(node, n));
    }
  }
  const found = [...encoders].flatMap(textsOf);
  return found.filter(({ widget }, n) => found.findIndex((other) => other.widget === widget) === n);
}

/** @param {any} node */
function encodes({ outputs }) {
  return (outputs ?? []).some((/** @type {any} */ { type }) => type === ENCODED);
}

/** @param {any} encoder whose text is only used as a negative prompt */
function isNegative(encoder) {
  const ends = encoder.outputs.flatMap((/** @type {any} */ _, /** @type {number} */ n) => targetsOf(encoder, n));
  return ends.length > 0 && ends.every((/** @type {any} */ { node, slot }) => /negative/i.test(node.inputs[slot].name));
}

/**
 * Returns the nodes that encode the positive prompt of a sampler.
 * @param {any} node any node
 * @param {string} type of the input by which it was reached
 * @returns {any[]}
 */
function positives(node, type) {
  if (type !== "MODEL") return [];
  const found = [];
  const seen = new Set();
  const pending = [{ node, slot: node.inputs.findIndex((/** @type {any} */ { name }) => name === "positive") }];
  for (const { node: after, slot } of pending) {
    const before = slot >= 0 ? sourceOf(after, slot)?.node : undefined;
    if (!before || seen.has(before)) continue;
    seen.add(before);
    if (textsOf(before).length) found.push(before);
    for (const [n, input] of (before.inputs ?? []).entries()) {
      if (input.type === ENCODED && !/negative/i.test(input.name)) pending.push({ node: before, slot: n });
    }
  }
  return found;
}

/**
 * Returns the text areas of a node, or those of the nodes that they are linked to.
 * @param {any} node
 * @returns {Prompt[]}
 */
function textsOf(node) {
  const areas = (node.widgets ?? []).filter((/** @type {any} */ { type }) => type === TEXT);
  return areas.flatMap((/** @type {any} */ widget) => {
    const slot = (node.inputs ?? []).findIndex((/** @type {any} */ i) => i.widget?.name === widget.name && i.link != null);
    if (slot < 0) return [{ node, widget }];
    const source = sourceOf(node, slot);
    const { name } = source?.node.inputs?.[source.slot] ?? {};
    const theirs = (source?.node.widgets ?? []).find((/** @type {any} */ other) =>
      source?.isInput ? other.name === name : typeof other.value === "string");
    return theirs ? [{ node: source?.node, widget: theirs }] : [];
  });
}
