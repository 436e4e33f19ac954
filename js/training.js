// @ts-check
/**
 * Shows a training on its node while it runs: loss curves, speed, memory and sample images, with
 * buttons to stop and to save. The server's messages carry the new values. After a page is reloaded
 * or a message is missed, the panel requests the whole history.
 */
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { isWhole, readRun, readRuns } from "./history.js";
import { classOf, isThere, nodeOfRun } from "./panel.js";
import { TrainingPanel } from "./training_panel.js";
import { DRAWS, SEARCHES } from "./training_words.js";
import { say } from "./translations.js";

const EVENT = "ziplora.training";
/** @type {Map<import("./panel.js").Node, TrainingPanel>} */
const panels = new Map();
let asking = 0;
let asked = Promise.resolve();

/**
 * Shows a server message on its node, if that node is on this canvas.
 * @param {any} message
 */
function receive(message) {
  if (!panels.size) return;
  const node = typeof message?.node_id === "string" ? nodeOfRun(message.node_id) : undefined;
  const panel = node && message.workflow === app.rootGraph.id ? panels.get(node) : undefined;
  if (!panel) return;
  if (!isWhole(message)) {
    panel.warn(say("The server sent data that cannot be shown."));
  } else if (panel.waiting) {
    panel.waiting.push(message);
  } else if (!panel.update(message)) {
    refill();
  }
}

/** Requests the histories for all panels at once; requests run one after another. */
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
    for (const run of await readRuns()) {
      const node = run.workflow === app.rootGraph.id ? nodeOfRun(run.node_id) : undefined;
      const panel = node && panels.get(node);
      if (!panel) continue;
      panel.waiting = [];
      const whole = await readRun(run);
      const messages = panel.arrived();
      if (!whole) continue;
      lost.delete(panel);
      panel.forget();
      for (const message of [whole, ...messages]) receive(message);
    }
    for (const panel of lost) {
      panel.lose(
        say("The server was restarted. Press Run to continue from the last checkpoint, if there is one."),
      );
    }
  } catch {
    for (const panel of panels.values()) {
      panel.arrived();
      panel.lose(say("The server does not answer."));
    }
  }
}

// Added before the page connects: the frontend warns about events without a listener.
const events = /** @type {EventTarget} */ (api); // its type only lists the frontend's own events
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
    const kind = classOf(node);
    panels.set(node, new TrainingPanel(node, DRAWS.get(kind) ?? false, SEARCHES.has(kind)));
    refill();
  },
});
