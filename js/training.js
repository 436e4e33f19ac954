// @ts-check
/**
 * Shows a training on its node while it runs: loss curves, pace, memory, sample pictures; stops it
 * and saves what it has learned. The server's messages bring what is new; after a page was loaded
 * anew, or a message was missed, the whole history is asked for.
 */
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { isWhole } from "./history.js";
import { also, nodeOfRun } from "./panel.js";
import { TrainingPanel } from "./training_panel.js";

const EVENT = "ziplora.training";
/** Which nodes train, and whether they draw pictures on the way. */
const DRAWS = new Map([
  ["ZipLoRAOptimize", false],
  ["TrainDreamBoothLoRA", true],
  ["TrainConceptSlider", true],
  ["TrainConceptSliderFromImages", true],
  ["UnZipLoRATrain", true],
]);

/** @type {Map<import("./panel.js").Node, TrainingPanel>} */
const panels = new Map();
let asking = 0;

/**
 * Shows what the server says on the node it is about, if that is on this canvas.
 * @param {any} message
 */
function receive(message) {
  if (!panels.size) return;
  const node = typeof message?.node_id === "string" ? nodeOfRun(message.node_id) : undefined;
  const panel = message?.workflow === app.rootGraph.id ? panels.get(node) : undefined;
  if (!panel) return;
  if (!isWhole(message)) {
    panel.say("The server has sent something that cannot be shown.");
  } else if (panel.waiting) {
    panel.waiting.push(message);
  } else if (!panel.update(message)) {
    refill();
  }
}

/** Asks the server, once for all panels, what it knows of them. */
function refill() {
  clearTimeout(asking);
  asking = setTimeout(async () => {
    if (!panels.size) return;
    try {
      const { runs } = await get("/ziplora/training");
      const mine = runs.filter((/** @type {import("./history.js").Message} */ run) => run.workflow === app.rootGraph.id);
      const found = new Set();
      for (const { node_id, workflow } of mine) {
        const panel = panels.get(nodeOfRun(node_id));
        if (!panel) continue;
        found.add(panel);
        panel.waiting = [];
        const place = `/ziplora/training/${encodeURIComponent(node_id)}`;
        const whole = await get(`${place}?${new URLSearchParams({ workflow })}`);
        panel.forget();
        for (const message of [{ ...whole, after: 0 }, ...panel.arrived()]) receive(message);
      }
      for (const panel of panels.values()) {
        if (found.has(panel)) continue;
        panel.lose("The server was started anew. Press Run to go on from the last checkpoint.");
      }
    } catch {
      for (const panel of panels.values()) {
        panel.arrived();
        panel.lose("The server does not answer.");
      }
    }
  }, 100);
}

/** @param {string} path */
async function get(path) {
  const answer = await api.fetchApi(path, { cache: "no-store" });
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

// Before the page has a line to the server: what nobody listens to, the frontend complains of.
const events = /** @type {EventTarget} */ (api); // its own type knows the frontend's events only
events.addEventListener(EVENT, (/** @type {any} */ event) => receive(event.detail));

app.registerExtension({
  name: "ziplora.training",
  setup() {
    api.addEventListener("reconnecting", () => {
      for (const panel of panels.values()) panel.setAway(true);
    });
    api.addEventListener("reconnected", () => {
      for (const panel of panels.values()) panel.setAway(false);
      refill();
    });
  },
  nodeCreated(/** @type {any} */ node) {
    if (!DRAWS.has(node.comfyClass)) return;
    const panel = new TrainingPanel(node, DRAWS.get(node.comfyClass) ?? false);
    panels.set(node, panel);
    also(node, "onRemoved", () => {
      panel.remove();
      panels.delete(node);
    });
    refill();
  },
});
