// @ts-check
/**
 * Replaces the elements of panels and reports where Nodes 2.0 has kept those of a node that is gone.
 *
 * The page knows a node by its number only. An undo, or a node that moves into a subgraph or out of
 * one, makes another node of the same number, and the frontend may keep the old node's elements on the
 * page, ours among them. Those elements would show and change a node that no longer exists.
 */
import { app } from "../../scripts/app.js";

let waiting = false;

/** Looks at the page once the frontend has updated it, which takes it two frames. */
function soon() {
  if (waiting) return;
  waiting = true;
  const look = () => {
    waiting = false;
    putInPlace();
  };
  requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(look)));
}

/** Replaces the elements of removed widgets by those of the widgets that took their place. */
function putInPlace() {
  for (const shown of document.querySelectorAll("[data-node-id] [data-ziplora-widget]")) {
    const { dataset } = /** @type {HTMLElement} */ (shown);
    const holder = /** @type {HTMLElement} */ (shown.closest("[data-node-id]"));
    const node = app.canvas.graph?.getNodeById(holder.dataset.nodeId ?? "");
    /** @type {any} */
    const widget = node?.widgets?.find((w) => w.name === dataset.ziploraWidget);
    if (widget?.element && widget.element !== shown) shown.replaceWith(widget.element);
  }
}

app.registerExtension({
  name: "ziplora.remount",
  setup() {
    app.canvas.canvas.addEventListener("litegraph:set-graph", soon); // a subgraph is opened or left
  },
  nodeCreated: soon,
  afterConfigureGraph: soon,
});
