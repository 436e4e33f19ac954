// @ts-check
/**
 * Shows the last results again on nodes that have none: after a reload, or when a workflow is opened
 * again. The frontend forgets them with the page; the server keeps them in its history. Those of
 * another copy of the workflow are shown where all inputs are the same.
 */
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { inputsOf, note, presentPrompt } from "./origin.js";
import { hasPanel, isOurs, nodeOfRun, placeOf } from "./panel.js";

const events = /** @type {EventTarget} */ (api); // its type only lists the frontend's own events
/** The number of prompts looked through. */
const LAST = 32;

/** Whether one of our nodes on this canvas has no result. */
function isBare() {
  return app.rootGraph.nodes.concat(...[...app.rootGraph.subgraphs.values()].map(({ nodes }) => nodes))
    .some((node) => isOurs(node) && !(placeOf(node) in app.nodeOutputs));
}

async function restore() {
  const workflow = app.rootGraph.id;
  if (!isBare()) return;
  const answer = await api.fetchApi(`/history?max_items=${LAST}`, { cache: "no-store" });
  const runs = answer.ok ? Object.values(await answer.json()) : [];
  const now = runs.length ? await presentPrompt() : {};
  if (workflow !== app.rootGraph.id) return; // another one has been opened
  for (const { prompt: [, prompt_id, prompt, extra], outputs } of runs.reverse()) {
    const isOwn = extra?.extra_pnginfo?.workflow?.id === workflow;
    for (const [id, output] of Object.entries(outputs)) {
      const node = nodeOfRun(id);
      if (!node || !isOurs(node) || placeOf(node) in app.nodeOutputs) continue;
      if (prompt[id]?.class_type !== node.type) continue;
      if (!isOwn && inputsOf(prompt, id) !== inputsOf(now, id)) continue;
      // As the server's message did: the frontend keeps the output, and shows its images.
      const detail = { node: id, display_node: id, output, prompt_id };
      events.dispatchEvent(new CustomEvent("executed", { detail }));
      if (hasPanel(node)) note(workflow, id, prompt);
    }
  }
}

app.registerExtension({
  name: "ziplora.results",
  afterConfigureGraph() {
    setTimeout(restore); // the frontend puts back what it has kept itself
  },
});
