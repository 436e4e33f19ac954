// @ts-check
/**
 * Shows what a node reports (its `text` output) on the node itself.
 *
 * The stock frontend does that for its own text nodes only. The widget is a plain DOM element, so
 * both renderers show it, and it is kept out of the workflow file and of the prompt.
 */
import { app } from "../../scripts/app.js";
import { also, classOf, showOnNode, showsOutputs, zoomThrough } from "./panel.js";
import { say } from "./words.js";

/** Which nodes report, and how many pixels their reports need. */
const HEIGHTS = new Map([
  ["LoadLoRAPair", 120],
  ["ZipLoRAOptimize", 256],
  ["LoadTrainingImages", 60],
  ["TrainDreamBoothLoRA", 128],
  ["TrainConceptSlider", 128],
  ["TrainConceptSliderFromImages", 128],
  ["ConceptSlider", 60],
  ["UnZipLoRATrain", 128],
  ["ApplyUnZipLoRA", 60],
  ["RecombineUnZipLoRA", 60],
  ["ImportUnZipLoRA", 100],
  ["MergeLoRAs", 80],
  ["SaveMergedLoRA", 100],
  ["SaveTrainedLoRA", 100],
  ["ResizeLoRA", 80],
  ["ExtractLoRA", 80],
  ["ImportLoRA", 100],
  ["ExportLoRA", 100],
  ["PlotWeights", 60],
  ["PruneLoRA", 80],
  ["AlignmentScores", 120],
]);
const WIDGET_NAME = "report";

/** @typedef {{ text?: string | string[] }} NodeOutput */

/**
 * Adds an empty report below the node's other widgets.
 * @param {import("./panel.js").Node} node
 */
function addReport(node) {
  const height = HEIGHTS.get(classOf(node)) ?? 0;
  const element = document.createElement("textarea");
  element.className = "comfy-multiline-input ziplora-report";
  element.readOnly = true;
  element.spellcheck = false;
  element.placeholder = say("The report appears here after a run.");
  element.addEventListener("wheel", (event) => scrollOrZoom(event, element));
  showOnNode(node, WIDGET_NAME, "Report of {title}", element, height, {
    getValue: () => element.value,
    setValue: (/** @type {string} */ value) => {
      element.value = value;
    },
  });
}

/**
 * Scrolls the report where it can be scrolled, and zooms the canvas elsewhere.
 * @param {WheelEvent} event
 * @param {HTMLTextAreaElement} element
 */
function scrollOrZoom(event, element) {
  if (!event.ctrlKey && element.scrollHeight > element.clientHeight) {
    event.stopPropagation();
    return;
  }
  zoomThrough(event);
}

/**
 * Fills the report of a node; outputs without text leave it as it is.
 * @param {import("./panel.js").Node} node
 * @param {NodeOutput} output
 */
function showReport(node, output) {
  const widget = node.widgets?.find((w) => w.name === WIDGET_NAME);
  if (!widget || output?.text === undefined) return;
  widget.value = [output.text].flat().join("\n\n");
}

app.registerExtension({
  name: "ziplora.report",
  nodeCreated(node) {
    if (!HEIGHTS.has(classOf(node))) return;
    addReport(node);
    also(node, "onExecuted", (output) => showReport(node, output));
  },
  ...showsOutputs((node, output) => {
    if (HEIGHTS.has(classOf(node))) showReport(node, output);
  }),
});
