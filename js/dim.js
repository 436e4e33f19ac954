// @ts-check
/**
 * Dims the panels of nodes that are muted or bypassed, as the classic canvas dims what it draws itself.
 * Nodes 2.0 dims a node with all that is in it.
 */
import { app } from "../../scripts/app.js";
import { also, isOurs } from "./panel.js";

/** The modes of nodes that do not run, by the frontend's numbers. */
const OFF = new Map([[2, "muted"], [4, "bypassed"]]);

/** @param {any} node */
function dim({ widgets, mode }) {
  const off = OFF.get(mode);
  for (const { element } of widgets ?? []) {
    if (!element?.dataset?.ziploraWidget || element.dataset.ziploraOff === off) continue;
    if (off) element.dataset.ziploraOff = off;
    else delete element.dataset.ziploraOff;
  }
}

app.registerExtension({
  name: "ziplora.dim",
  nodeCreated(node) {
    // The frontend has no event for it; what a drawing calls costs nothing while nothing changes.
    if (isOurs(node)) also(node, "onDrawForeground", () => dim(node));
  },
});
