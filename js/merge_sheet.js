// @ts-check
/**
 * Shows an image of every merge that Find the Merge tried, on Choose Merge. A click takes one: it
 * sets the number `choice`, which remains the value that is saved and queued.
 */
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { openLarge } from "./large_picture.js";
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
    /** @type {import("./strip.js").Shown[]} */
    this.shown = [];
    this.grid = make("div", { class: "sheet" });
    this.compare = make("button", { type: "button" }, say("Compare"));
    this.compare.title = say("Compare the chosen image with another one");
    this.compare.addEventListener("click", () => this.openLarge());
    this.element = makePanel(say("The images appear here after a run. Click one to take it."));
    this.element.append(this.grid, make("div", { class: "row" }, this.compare));
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
    this.shown = sheet.rows.map(shownOf);
    this.compare.hidden = sheet.rows.length < 2;
    this.buttons = new Map(sheet.rows.map(({ number }, place) => [number, this.button(number, place)]));
    this.grid.replaceChildren(...this.buttons.values());
    this.mark();
  }

  /**
   * @param {number} number of the row
   * @param {number} place on the sheet from 0
   */
  button(number, place) {
    const { src, name } = this.shown[place];
    const picture = make("img", { src, alt: "", draggable: "false" });
    const button = make("button", { type: "button", title: name, "aria-label": name });
    button.append(picture, make("span", { class: "numbers" }, this.blind ? letter(place) : name));
    button.addEventListener("click", () => this.choose(number));
    return button;
  }

  /** Shows the chosen image beside another one: the first, or the second if the first is chosen. */
  openLarge() {
    const at = Math.max(0, [...this.buttons.keys()].indexOf(this.chosen));
    openLarge({ all: this.shown, at, other: at ? 0 : 1 }, "divider");
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

  /** The chosen row. 0 is the first one; a blind sheet does not give that away. */
  get chosen() {
    return Number(this.widget?.value ?? 0) || (this.blind ? 0 : 1);
  }

  /** Frames the chosen image. */
  mark() {
    for (const [number, button] of this.buttons) {
      button.setAttribute("aria-pressed", String(number === this.chosen));
    }
  }
}

/**
 * @param {Row} row
 * @param {number} place on the sheet from 0
 */
function shownOf({ label, filename, subfolder, type }, place) {
  const src = api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type })}`);
  const name = label || say("Image {letter}", { letter: letter(place) });
  return { src, name, alt: name, captions: [] };
}

/** @param {number} place on the sheet from 0 */
function letter(place) {
  return String.fromCharCode(A + (place % 26)).repeat(1 + Math.floor(place / 26));
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
