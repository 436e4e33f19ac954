// @ts-check
/**
 * Replaces the elements of panels and reports after an undo in Nodes 2.0.
 *
 * The frontend then recreates every node but keeps the old nodes' elements on the page, ours among
 * them. Those elements would show and change nodes that no longer exist.
 */
import { app } from "../../scripts/app.js";

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
  afterConfigureGraph() {
    // The frontend has updated the page two frames later.
    requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(putInPlace)));
  },
});
