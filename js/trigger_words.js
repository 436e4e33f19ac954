// @ts-check
/** Puts a LoRA's trigger words at the start of the prompts that its node leads to. */
import { app } from "../../scripts/app.js";
import { promptsOf } from "./prompts.js";
import { say } from "./translations.js";

/**
 * Puts words into the prompts that lack them, as one step to undo; without a prompt, copies them.
 * @param {any} node
 * @param {number} output the slot that leads to the prompts
 * @param {string[]} words
 * @returns {Promise<string>} what was done, for the person
 */
export async function putIntoPrompts(node, output, words) {
  const prompts = promptsOf(node, output);
  if (!prompts.length) return copy(words);
  const short = prompts.filter(({ widget }) => missing(words, widget.value).length);
  if (!short.length) return say("Already in {title}.", { title: titles(prompts) });
  app.canvas.emitBeforeChange();
  for (const { node: holder, widget } of short) {
    const text = String(widget.value ?? "");
    widget.value = [...missing(words, text), text.trim()].filter(Boolean).join(", ");
    widget.callback?.(widget.value, app.canvas, holder);
  }
  app.canvas.emitAfterChange();
  app.canvas.setDirty(true, true);
  return say("Put into {title}.", { title: titles(short) });
}

/**
 * Returns the words that a text does not contain as whole words, whatever their capitals.
 * @param {string[]} words
 * @param {unknown} text
 */
function missing(words, text) {
  return words.filter((word) => {
    const plain = word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
    return !new RegExp(`(?<![\\p{L}\\p{N}])${plain}(?![\\p{L}\\p{N}])`, "iu").test(String(text ?? ""));
  });
}

/** @param {import("./prompts.js").Prompt[]} prompts */
function titles(prompts) {
  return [...new Set(prompts.map(({ node }) => node.title || node.type))].join(", ");
}

/** @param {string[]} words */
async function copy(words) {
  try {
    await navigator.clipboard.writeText(words.join(", "));
    return say("No prompt is connected: copied.");
  } catch { // without permission, or where the page is not served securely
    return say("No prompt is connected.");
  }
}
