// @ts-check
/**
 * Compares the images of two selected nodes or more, whatever nodes they are: those of the plain sum of two
 * LoRAs and of a merge, say, each on a Save Image of its own. The button is on the selection's toolbox.
 */
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { openLarge } from "./large_picture.js";
import { placeOf } from "./panel.js";
import { say } from "./translations.js";

const COMMAND = "ziplora.compare_images";
const IMAGE = /\.(png|jpe?g|webp|gif|avif)$/i;

/**
 * Returns the images that a node shows.
 * @param {import("./panel.js").Node} node
 * @returns {import("./strip.js").Shown[]}
 */
function imagesOf(node) {
  /** @type {any} */
  const output = app.nodeOutputs[placeOf(node)];
  const files = (output?.images ?? []).filter((/** @type {any} */ file) => IMAGE.test(file?.filename ?? ""));
  return files.map((/** @type {any} */ { filename, subfolder = "", type = "output" }, /** @type {number} */ n) => {
    const src = api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type })}`);
    const name = files.length > 1 ? `${node.title} ${n + 1}` : node.title;
    return { src, name, alt: name, captions: [] };
  });
}

/** Returns the images of each selected node that shows any, from left to right. */
function selected() {
  const nodes = Object.values(app.canvas.selected_nodes ?? {});
  nodes.sort((a, b) => a.pos[0] - b.pos[0] || a.pos[1] - b.pos[1]);
  return nodes.map(imagesOf).filter((images) => images.length > 0);
}

function compare() {
  const groups = selected();
  if (groups.length > 1) {
    openLarge({ all: groups.flat(), at: groups[0].length, other: 0 }, "divider");
    return;
  }
  const summary = say("Select two nodes that show images, and try again.");
  app.extensionManager.toast.add({ severity: "info", summary, life: 5000 });
}

app.registerExtension({
  name: "ziplora.compare_images",
  commands: [{ id: COMMAND, label: () => say("Compare images"), icon: "pi pi-arrows-h", function: compare }],
  getSelectionToolboxCommands: () => (selected().length > 1 ? [COMMAND] : []),
});
