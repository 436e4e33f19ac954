// @ts-check
/**
 * Shows a training on its node while it runs: loss curves, pace, memory, sample pictures; stops it
 * and saves what it has learned. The server's messages bring what is new; after a page was loaded
 * anew, or a message was missed, the whole history is asked for.
 */
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { isWhole } from "./history.js";
import { classOf, isThere, nodeOfRun } from "./panel.js";
import { TrainingPanel } from "./training_panel.js";
import { say } from "./words.js";

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
let asked = Promise.resolve();

/**
 * Shows what the server says on the node it is about, if that is on this canvas.
 * @param {any} message
 */
function receive(message) {
  if (!panels.size) return;
  const node = typeof message?.node_id === "string" ? nodeOfRun(message.node_id) : undefined;
  const panel = node && message.workflow === app.rootGraph.id ? panels.get(node) : undefined;
  if (!panel) return;
  if (!isWhole(message)) {
    panel.warn(say("The server has sent something that cannot be shown."));
  } else if (panel.waiting) {
    panel.waiting.push(message);
  } else if (!panel.update(message)) {
    refill();
  }
}

/** Asks the server, once for all panels, what it knows of them; one time after the other. */
function refill() {
  clearTimeout(asking);
  asking = setTimeout(() => {
    asked = asked.then(fill);
  }, 100);
}

async function fill() {
  for (const node of panels.keys()) if (!isThere(node)) panels.delete(node);
  if (!panels.size) return;
  const lost = new Set(panels.values());
  try {
    const { runs = [] } = await get("/ziplora/training");
    for (const { node_id, workflow } of runs) {
      const node = workflow === app.rootGraph.id ? nodeOfRun(node_id) : undefined;
      const panel = node && panels.get(node);
      if (!panel) continue;
      panel.waiting = [];
      const place = `/ziplora/training/${encodeURIComponent(node_id)}`;
      const whole = await get(`${place}?${new URLSearchParams({ workflow })}`);
      const messages = panel.arrived();
      if (!whole.run) continue;
      lost.delete(panel);
      panel.forget();
      for (const message of [{ ...whole, after: 0 }, ...messages]) receive(message);
    }
    for (const panel of lost) {
      panel.lose(
        say("The server was started anew. Press Run: it goes on where a checkpoint was written."),
      );
    }
  } catch {
    for (const panel of panels.values()) {
      panel.arrived();
      panel.lose(say("The server does not answer."));
    }
  }
}

/** @param {string} path what the server says there; nothing where there is nothing (any more) */
async function get(path) {
  const answer = await api.fetchApi(path, { cache: "no-store" });
  if (answer.status === 404) return {};
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
  nodeCreated(node) {
    if (!DRAWS.has(classOf(node))) return;
    panels.set(node, new TrainingPanel(node, DRAWS.get(classOf(node)) ?? false));
    refill();
  },
});
