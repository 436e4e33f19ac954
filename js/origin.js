// @ts-check
/**
 * Marks results that belong to other inputs than the present ones: of the node itself, or of a node
 * before it.
 *
 * The inputs of a result are those of its prompt, which the server keeps in its history. They are
 * compared with what would be queued now, whenever the workflow has changed.
 */
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { hasPanel, nodeOfRun } from "./panel.js";

/** @typedef {Record<string, { class_type: string, inputs: Record<string, any> }>} Prompt */

/** Milliseconds from a change to the comparison, for changes that come close together. */
const PAUSE = 300;
/** Milliseconds from a run's end to the looks into the history, which ComfyUI writes after it says so. */
const LOOKS = [0, 200, 1000, 5000];
/** The event on a panel's element when its mark changes. */
export const AGED = "aged";

/** @type {Map<string, Map<string, Prompt>>} the prompt of each node's result, by workflow and node */
const origins = new Map();
/** @type {Map<string, Set<string>>} the nodes that have run in a prompt whose end is awaited */
const ran = new Map();
let comparing = 0;

/**
 * Notes the prompt that a node's result belongs to.
 * @param {string} workflow its id
 * @param {string} id the server's id of the node
 * @param {Prompt} prompt
 */
export function note(workflow, id, prompt) {
  if (!origins.has(workflow)) origins.set(workflow, new Map());
  origins.get(workflow)?.set(id, prompt);
  compareSoon();
}

function compareSoon() {
  clearTimeout(comparing);
  if (origins.has(app.rootGraph.id)) comparing = setTimeout(compare, PAUSE);
}

/** Returns what would be queued now. */
export async function presentPrompt() {
  const { output } = await app.graphToPrompt();
  return /** @type {Prompt} */ (output);
}

async function compare() {
  const now = await presentPrompt();
  for (const [id, prompt] of origins.get(app.rootGraph.id) ?? []) {
    const node = nodeOfRun(id);
    if (node) age(node, inputsOf(prompt, id) !== inputsOf(now, id));
  }
}

/**
 * @param {import("./panel.js").Node} node
 * @param {boolean} old
 */
function age(node, old) {
  for (const { element } of /** @type {any[]} */ (node.widgets ?? [])) {
    if (!element?.dataset?.ziploraWidget || "ziploraOld" in element.dataset === old) continue;
    element.toggleAttribute("data-ziplora-old", old);
    element.dispatchEvent(new Event(AGED));
  }
}

/**
 * Returns all that a node's result depends on, as text. A seed that changes after every run is left
 * out: the result of the last run stays the one that was asked for.
 * @param {Prompt} prompt
 * @param {string} id
 */
export function inputsOf(prompt, id) {
  /** @type {Map<string, unknown>} */
  const found = new Map();
  const pending = [id];
  for (const next of pending) {
    const entry = prompt[next];
    if (!entry || found.has(next)) continue;
    const inputs = Object.entries(entry.inputs).filter(([name]) => !isReplaced(next, name)).sort();
    found.set(next, [entry.class_type, inputs]);
    for (const [, value] of inputs) if (isLink(value, prompt)) pending.push(String(value[0]));
  }
  return JSON.stringify([...found]);
}

/**
 * @param {any} value of an input
 * @param {Prompt} prompt
 */
function isLink(value, prompt) {
  return Array.isArray(value) && value.length === 2 && String(value[0]) in prompt;
}

/**
 * @param {string} id of a node
 * @param {string} name of an input
 */
function isReplaced(id, name) {
  /** @type {any} */
  const widget = nodeOfRun(id)?.widgets?.find((w) => w.name === name);
  return (widget?.linkedWidgets ?? []).some(
    (/** @type {any} */ other) => other.name === "control_after_generate" && other.value !== "fixed",
  );
}

/** @param {any} event of a node that has run */
function remember({ detail: { node, prompt_id } }) {
  const id = String(node);
  const found = nodeOfRun(id);
  if (!found || !hasPanel(found)) return;
  if (!ran.has(prompt_id)) ran.set(prompt_id, new Set());
  ran.get(prompt_id)?.add(id);
}

/** @param {any} event of the end of a prompt */
async function readInputs({ detail: { prompt_id } }) {
  const ids = ran.get(prompt_id);
  if (!ids) return;
  ran.delete(prompt_id);
  for (const pause of LOOKS) {
    await new Promise((done) => setTimeout(done, pause));
    const answer = await api.fetchApi(`/history/${prompt_id}`, { cache: "no-store" });
    const [, , prompt, extra] = (answer.ok && (await answer.json())[prompt_id]?.prompt) || [];
    if (!prompt) continue;
    const workflow = extra?.extra_pnginfo?.workflow?.id;
    if (workflow) for (const id of ids) note(workflow, id, prompt);
    return;
  }
}

app.registerExtension({
  name: "ziplora.origin",
  setup() {
    const events = /** @type {EventTarget} */ (api);
    events.addEventListener("executed", remember);
    for (const end of ["execution_success", "execution_error", "execution_interrupted"]) {
      events.addEventListener(end, readInputs);
    }
    events.addEventListener("graphChanged", compareSoon);
  },
  afterConfigureGraph: compareSoon,
});
