// @ts-check
/**
 * Shows a node's report (its `text` output) on the node itself.
 *
 * The stock frontend does so for its own text nodes only. The widget is a plain DOM element, so both
 * renderers show it; it is not part of the workflow file or the prompt. A report longer than its area
 * scrolls, as in the frontend's own text nodes.
 */
import { app } from "../../scripts/app.js";
import { also, classOf, showOnNode, showsOutputs, zoomThrough } from "./panel.js";
import { say } from "./translations.js";

/** The nodes with a report, and the number of lines visible at their smallest size. */
const LINES = new Map([
  ["LoadLoRAPair", 9],
  ["ZipLoRAOptimize", 23],
  ["LoadTrainingImages", 5],
  ["TrainDreamBoothLoRA", 12],
  ["PastTrainings", 16],
  ["TrainConceptSlider", 14],
  ["TrainConceptSliderFromImages", 14],
  ["ConceptSlider", 5],
  ["UnZipLoRATrain", 20],
  ["ApplyUnZipLoRA", 5],
  ["RecombineUnZipLoRA", 5],
  ["ImportUnZipLoRA", 8],
  ["MergeLoRAs", 12],
  ["ApplyMergedLoRA", 6],
  ["FindMerge", 20],
  ["SaveMergedLoRA", 8],
  ["SaveTrainedLoRA", 8],
  ["ResizeLoRA", 6],
  ["ExtractLoRA", 6],
  ["ImportLoRA", 8],
  ["ExportLoRA", 8],
  ["PlotWeights", 5],
  ["PruneLoRA", 6],
  ["AlignmentScores", 10],
  ["JudgePictures", 14],
]);
/** Line height as a share of the font size; the fonts' own line heights differ by a fifth or more. */
const LINE_HEIGHT = 1.1;
const FONT_SIZE = 10; // the frontend's default
const PADDING = 2; // the frontend's padding above and below the text
/** Shades the last line while there is more text below: many systems hide their scroll bars. */
const MORE = "inset 0 -12px 8px -8px color-mix(in srgb, var(--fg-color) 45%, transparent)";
const WIDGET_NAME = "report";

/** @typedef {{ text?: string | string[] }} NodeOutput */

/**
 * Adds an empty report below the node's other widgets.
 * @param {import("./panel.js").Node} node
 */
function addReport(node) {
  const lines = LINES.get(classOf(node)) ?? 0;
  const height = Math.round(lines * LINE_HEIGHT * FONT_SIZE) + 2 * PADDING;
  const element = document.createElement("textarea");
  element.className = "comfy-multiline-input ziplora-report";
  element.style.lineHeight = String(LINE_HEIGHT);
  element.readOnly = true;
  element.spellcheck = false;
  element.placeholder = say("The report appears here after a run.");
  element.addEventListener("wheel", (event) => scrollOrZoom(event, element));
  element.addEventListener("scroll", () => showMore(element));
  new ResizeObserver(() => showMore(element)).observe(element);
  showOnNode(node, WIDGET_NAME, "Report of {title}", element, height, {
    getValue: () => element.value,
    setValue: (/** @type {string} */ value) => {
      element.value = value;
      showMore(element);
    },
  });
}

/**
 * Shows whether there is more text below the visible part of the report.
 * @param {HTMLTextAreaElement} element
 */
function showMore(element) {
  const below = element.scrollHeight - element.clientHeight - element.scrollTop;
  element.style.boxShadow = below > 1 ? MORE : ""; // when zoomed, scroll positions are fractions of a pixel
}

/**
 * Scrolls the report if it is scrollable, else zooms the canvas.
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
 * Fills the report of a node; outputs without text do not change it.
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
    if (!LINES.has(classOf(node))) return;
    addReport(node);
    also(node, "onExecuted", (output) => showReport(node, output));
  },
  ...showsOutputs((node, output) => {
    if (LINES.has(classOf(node))) showReport(node, output);
  }),
});
