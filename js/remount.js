// @ts-check
/**
 * Puts panels and reports in place after a change was undone in Nodes 2.0.
 *
 * The frontend then makes every node anew, but keeps on the page what it shows of the old ones, our
 * elements among them: they would show and move what is no longer there.
 */
import { app } from "../../scripts/app.js";

/** Replaces the elements of widgets that are gone by those of the widgets in their place. */
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
    // Two frames later, the frontend has put on the page what is new.
    requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(putInPlace)));
  },
});
