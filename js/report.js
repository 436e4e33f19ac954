// @ts-check
/**
 * Shows a node's report (its `text` output) on the node itself.
 *
 * The stock frontend does so for its own text nodes only. The widget is a plain DOM element, so both
 * renderers show it; it is not part of the workflow file or the prompt. A report longer than its area
 * scrolls, as in the frontend's own text nodes.
 */
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { AGED } from "./origin.js";
import { also, classOf, fill, isOurs, nodeOfRun, placeOf, showOnNode, showsOutputs, zoomThrough } from "./panel.js";
import { addStyle } from "./style.js";
import { say } from "./translations.js";

/** The nodes with a report, and the number of lines visible at their smallest size. */
const LINES = new Map([
  ["LoadLoRAPair", 9],
  ["ZipLoRAOptimize", 28],
  ["LoadTrainingImages", 5],
  ["TrainDreamBoothLoRA", 17],
  ["PastTrainings", 16],
  ["TrainConceptSlider", 19],
  ["TrainConceptSliderFromImages", 19],
  ["ConceptSlider", 5],
  ["UnZipLoRATrain", 25],
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
/** How long an error's toast stays, in milliseconds; the report keeps it. */
const TOAST = 20_000;

/** @type {Map<string, string>} the errors of nodes that failed in their last run, by workflow and place */
const errors = new Map();

/** @typedef {{ text?: string | string[] }} NodeOutput */

/**
 * Adds an empty report below the node's other widgets.
 * @param {import("./panel.js").Node} node
 */
function addReport(node) {
  addStyle();
  const lines = LINES.get(classOf(node)) ?? 0;
  const height = Math.round(lines * LINE_HEIGHT * FONT_SIZE) + 2 * PADDING;
  const element = document.createElement("textarea");
  element.className = "comfy-multiline-input ziplora-report";
  element.style.lineHeight = String(LINE_HEIGHT);
  element.dataset.empty = "";
  element.readOnly = true;
  element.spellcheck = false;
  element.placeholder = say("The report appears here after a run.");
  element.addEventListener("wheel", (event) => scrollOrZoom(event, element));
  element.addEventListener("scroll", () => showMore(element));
  new ResizeObserver(() => showMore(element)).observe(element);
  let text = "";
  const write = () => {
    const isOld = text && "ziploraOld" in element.dataset;
    element.value = isOld ? `${say("Of other inputs than the present ones:")}\n${text}` : text;
    showMore(element);
  };
  element.addEventListener(AGED, write);
  showOnNode(node, WIDGET_NAME, "Report of {title}", element, height, {
    getValue: () => text,
    setValue: (/** @type {string} */ value) => {
      text = value;
      if (text) fill(element);
      write();
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
 * Fills the report of a node; outputs without text do not change it. A node that failed in its last
 * run shows why.
 * @param {import("./panel.js").Node} node
 * @param {NodeOutput} output
 */
function showReport(node, output) {
  const widget = node.widgets?.find((w) => w.name === WIDGET_NAME);
  const error = errors.get(keyOf(node));
  if (!widget || (error === undefined && output?.text === undefined)) return;
  /** @type {any} */ (widget).element.toggleAttribute("data-failed", error !== undefined);
  widget.value = error ?? [output.text].flat().join("\n\n");
}

/** @param {import("./panel.js").Node} node */
function keyOf(node) {
  return `${app.rootGraph.id}/${placeOf(node)}`;
}

/**
 * Shows the error of one of our nodes in its report and in a toast: the frontend's own says only that
 * there is one.
 * @param {any} event
 */
function showError({ detail: { node_id, node_type, exception_message } }) {
  const node = nodeOfRun(String(node_id));
  if (!node || classOf(node) !== node_type || !isOurs(node)) return;
  const detail = exception_message.trim();
  errors.set(keyOf(node), detail);
  showReport(node, {});
  const summary = say("{title} did not run", { title: node.title });
  app.extensionManager.toast.add({ severity: "error", summary, detail, life: TOAST });
}

app.registerExtension({
  name: "ziplora.report",
  setup() {
    api.addEventListener("execution_error", showError);
  },
  nodeCreated(node) {
    if (!LINES.has(classOf(node))) return;
    addReport(node);
    also(node, "onExecuted", (output) => {
      errors.delete(keyOf(node));
      showReport(node, output);
    });
  },
  ...showsOutputs((node, output) => {
    if (LINES.has(classOf(node))) showReport(node, output);
  }),
});
