// @ts-check
/** Brings the lists of files up to date when a node of ours has saved one, as pressing R does. */
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { nodeOfRun } from "./panel.js";

const SAVERS = new Set(["SaveMergedLoRA", "SaveTrainedLoRA"]);
/** @type {Set<string>} what savers have said; of a cached run, they say it again */
const said = new Set();
let isBehind = false;

/** @param {any} event of a node that has run */
function look({ detail: { node, output } }) {
  const text = String([output?.text].flat()[0] ?? "");
  if (!text || said.has(text) || !SAVERS.has(nodeOfRun(String(node))?.type ?? "")) return;
  said.add(text);
  isBehind = true;
}

async function update() {
  if (!isBehind) return;
  isBehind = false;
  await /** @type {any} */ (app).reloadNodeDefs?.(); // older frontends have it only with messages
}

app.registerExtension({
  name: "ziplora.saved",
  setup() {
    const events = /** @type {EventTarget} */ (api); // its type only lists the frontend's own events
    events.addEventListener("executed", look);
    for (const end of ["execution_success", "execution_error", "execution_interrupted"]) {
      events.addEventListener(end, update);
    }
  },
});
