// @ts-check
/**
 * Shows an image of every merge that Find the Merge tried, on Choose Merge. A click takes one: it
 * sets the number `choice`, which remains the value that is saved and queued.
 */
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { isLinked, onChange } from "./number_widget.js";
import { also, classOf, fill, make, makePanel, showOnNode, showsOutputs } from "./panel.js";
import { say } from "./translations.js";

const NODE = "ChooseMerge";
const OUTPUT = "ziplora_merge_sheet";
const CHOICE = "choice";
const HEIGHT = 400;
/** The least width of a new node: the images are to be compared. */
const WIDTH = 420;
const A = 65;

/**
 * @typedef {object} Row A merge that was tried; in a blind sheet without its label.
 * @property {number} number of the row from 1
 * @property {string} label
 * @property {string} filename
 * @property {string} subfolder
 * @property {string} type
 */

class MergeSheet {
  /** @param {import("./panel.js").Node} node */
  constructor(node) {
    this.node = node;
    /** @type {Map<number, HTMLButtonElement>} by the row's number */
    this.buttons = new Map();
    this.blind = false;
    this.grid = make("div", { class: "sheet" });
    this.element = makePanel(say("The images appear here after a run. Click one to take it."));
    this.element.append(this.grid);
    showOnNode(node, "merge_sheet", "Images of {title}", this.element, HEIGHT);
    node.setSize([Math.max(WIDTH, node.size[0]), node.size[1]]);
    if (this.widget) onChange(this.widget, () => this.mark());
  }

  get widget() {
    return this.node.widgets?.find((w) => w.name === CHOICE);
  }

  /** @param {unknown} output of a node; its sheet is shown, if it has one */
  show(output) {
    const [sheet] = /** @type {any} */ (output)?.[OUTPUT] ?? [];
    if (!isSheet(sheet)) return;
    this.blind = sheet.blind;
    fill(this.element);
    const columns = Math.ceil(Math.sqrt(sheet.rows.length));
    this.grid.style.gridTemplateColumns = `repeat(${columns}, minmax(0, 1fr))`;
    this.buttons = new Map(sheet.rows.map((row, place) => [row.number, this.button(row, place)]));
    this.grid.replaceChildren(...this.buttons.values());
    this.mark();
  }

  /**
   * @param {Row} row
   * @param {number} place on the sheet from 0
   */
  button({ number, label, filename, subfolder, type }, place) {
    const letter = String.fromCharCode(A + (place % 26)).repeat(1 + Math.floor(place / 26));
    const name = label || say("Image {letter}", { letter });
    const source = api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type })}`);
    const picture = make("img", { src: source, alt: "", draggable: "false" });
    const button = make("button", { type: "button", title: name, "aria-label": name });
    button.append(picture, make("span", { class: "numbers" }, label || letter));
    button.addEventListener("click", () => this.choose(number));
    return button;
  }

  /** @param {number} number of the row to take */
  choose(number) {
    const { node, widget } = this;
    if (!widget || isLinked(node, CHOICE)) return;
    app.canvas.emitBeforeChange();
    widget.value = number;
    widget.callback?.(number, app.canvas, node);
    app.canvas.emitAfterChange();
    node.graph?.setDirtyCanvas(true, true);
  }

  /** Frames the chosen image. 0 is the first row; a blind sheet does not give that away. */
  mark() {
    const choice = Number(this.widget?.value ?? 0);
    const chosen = choice || (this.blind ? 0 : 1);
    for (const [number, button] of this.buttons) {
      button.setAttribute("aria-pressed", String(number === chosen));
    }
  }
}

/**
 * Checks whether a value is a complete sheet.
 * @param {any} sheet
 * @returns {sheet is { blind: boolean, rows: Row[] }}
 */
function isSheet(sheet) {
  const { blind, rows } = sheet ?? {};
  return (
    typeof blind === "boolean" && Array.isArray(rows) && rows.length > 0 &&
    rows.every((/** @type {any} */ row) => Number.isInteger(row?.number) &&
      [row.label, row.filename, row.subfolder, row.type].every((text) => typeof text === "string"))
  );
}

/** @type {WeakMap<import("./panel.js").Node, MergeSheet>} */
const sheets = new WeakMap();

app.registerExtension({
  name: "ziplora.merge_sheet",
  nodeCreated(node) {
    if (classOf(node) !== NODE) return;
    const sheet = new MergeSheet(node);
    sheets.set(node, sheet);
    also(node, "onExecuted", (output) => sheet.show(output));
  },
  ...showsOutputs((node, output) => sheets.get(node)?.show(output)),
});
