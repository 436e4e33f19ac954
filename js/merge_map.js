// @ts-check
/**
 * Shows what ZipLoRA Optimize has learned as a map of the UNet: a column for every transformer block
 * in network order, a row for every layer in it.
 */
import { app } from "../../scripts/app.js";
import { between, CURVES, SIGNS, SIZES } from "./colours.js";
import { also, isLight, make, makePanel, nodeOfOutput, onPalette, showOnNode } from "./panel.js";
import { short } from "./scales.js";

const NODES = new Set(["ZipLoRAOptimize"]);
const OUTPUT = "ziplora_merge_map";
const HEIGHT = 166;
const LEFT = 66;
const BOTTOM = 14;

/**
 * @typedef {object} MergeMap See ziplora_core/merge_map.py.
 * @property {string[]} blocks
 * @property {string[]} layers
 * @property {number[][]} cells column, row, and the four quantities
 * @property {[number, number]} range
 * @property {[number[], number[]][]} histograms
 */

/** What can be shown: its place in a cell, whether it has a sign. */
const QUANTITIES = [
  { label: "mean |m_c|, content", at: 2, signed: false },
  { label: "mean |m_s|, style", at: 3, signed: false },
  { label: "layer cosine before", at: 4, signed: true },
  { label: "layer cosine after", at: 5, signed: true },
];

class MapPanel {
  /** @param {import("./panel.js").Node} node */
  constructor(node) {
    /** @type {MergeMap | null} */
    this.map = null;
    this.at = -1;
    this.quantity = QUANTITIES[0];
    this.choice = make("select", { "aria-label": "What the colours show" });
    this.choice.append(...QUANTITIES.map(({ label }) => make("option", {}, label)));
    this.choice.addEventListener("change", () => {
      this.quantity = QUANTITIES[this.choice.selectedIndex];
      this.draw();
    });
    this.bar = make("span", { "aria-hidden": "true" });
    this.bar.style.cssText = "width: 72px; height: 10px; border-radius: 2px; flex: none";
    this.low = make("span", { class: "numbers" });
    this.high = make("span", { class: "numbers" });
    this.canvas = make("canvas", { role: "img", tabindex: "0" });
    this.tip = make("div", { class: "tip", "aria-hidden": "true" });
    this.plot = make("div", { class: "plot" }, this.canvas, this.tip);
    const legend = make("span", { class: "row" }, this.low, this.bar, this.high);
    const gap = make("span", { class: "grow" });
    this.element = makePanel(`Map of ${node.title}`);
    this.element.append(make("div", { class: "row" }, this.choice, gap, legend), this.plot);
    showOnNode(node, "merge_map", this.element, HEIGHT);
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.plot);
    this.endPalette = onPalette(() => this.draw());
    this.canvas.addEventListener("pointermove", (event) => this.look(this.cellAt(event)));
    this.canvas.addEventListener("pointerleave", () => this.look(-1));
    this.canvas.addEventListener("blur", () => this.look(-1));
    this.canvas.addEventListener("keydown", (event) => this.move(event));
  }

  /** @param {unknown} output shows the map in a node's output, if there is one */
  show(output) {
    const [map] = /** @type {any} */ (output)?.[OUTPUT] ?? [];
    if (!isMap(map)) return;
    this.map = map;
    this.at = -1;
    this.draw();
  }

  remove() {
    this.observer.disconnect();
    this.endPalette();
  }

  /** How large a cell is. */
  size() {
    const { blocks, layers } = this.map ?? { blocks: [], layers: [] };
    const width = (this.plot.clientWidth - LEFT) / Math.max(1, blocks.length);
    return { width, height: (this.plot.clientHeight - BOTTOM) / Math.max(1, layers.length) };
  }

  /** The values that have the first and the last colour. */
  range() {
    const values = (this.map?.cells ?? []).map((cell) => cell[this.quantity.at]);
    if (!this.quantity.signed) return [Math.min(...values), Math.max(...values)];
    // Before and after share a scale, to be compared.
    const both = (this.map?.cells ?? []).flatMap((cell) => [Math.abs(cell[4]), Math.abs(cell[5])]);
    const most = Math.max(1e-6, ...both);
    return [-most, most];
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.plot;
    const context = this.canvas.getContext("2d");
    if (!context || !width || !height) return;
    const ratio = window.devicePixelRatio || 1;
    [this.canvas.width, this.canvas.height] = [width * ratio, height * ratio].map(Math.round);
    context.scale(ratio, ratio);
    context.font = "10px system-ui, sans-serif";
    context.fillStyle = getComputedStyle(this.plot).color;
    this.choice.disabled = !this.map;
    this.describe();
    if (!this.map) {
      context.fillText("The map of the UNet appears here after a run.", 4, 14);
      return;
    }
    const range = this.range();
    const colours = this.quantity.signed ? SIGNS[isLight(this.element) ? "light" : "dark"] : SIZES;
    this.bar.style.background = `linear-gradient(to right, ${colours.join(", ")})`;
    [this.low.textContent, this.high.textContent] = range.map(short);
    this.names(context, height);
    const size = this.size();
    for (const cell of this.map.cells) {
      const share = (cell[this.quantity.at] - range[0]) / (range[1] - range[0] || 1);
      context.fillStyle = between(colours, share);
      const gap = size.width > 4 ? 1 : 0;
      context.fillRect(LEFT + cell[0] * size.width, cell[1] * size.height,
        size.width - gap, size.height - 1);
    }
    if (this.at < 0) return;
    const [column, row] = this.map.cells[this.at];
    context.strokeStyle = getComputedStyle(this.plot).color;
    context.lineWidth = 2;
    context.strokeRect(LEFT + column * size.width, row * size.height, size.width, size.height);
  }

  /**
   * Names the rows, and the blocks below their columns.
   * @param {CanvasRenderingContext2D} context
   * @param {number} height
   */
  names(context, height) {
    const { blocks, layers } = /** @type {MergeMap} */ (this.map);
    const size = this.size();
    context.textBaseline = "middle";
    layers.forEach((layer, row) => context.fillText(layer, 0, (row + 0.5) * size.height, LEFT - 4));
    context.textBaseline = "bottom";
    let end = 0;
    blocks.forEach((block, column) => {
      const name = brief(block);
      const x = LEFT + column * size.width;
      if (column && brief(blocks[column - 1]) === name) return;
      context.fillRect(x - 0.5, height - BOTTOM, 1, 4);
      if (x < end) return;
      context.fillText(name, x + 2, height);
      end = x + context.measureText(name).width + 6;
    });
  }

  /** @param {PointerEvent} event */
  cellAt(event) {
    const size = this.size();
    const column = Math.floor((event.offsetX - LEFT) / size.width);
    return this.find(column, Math.floor(event.offsetY / size.height));
  }

  /**
   * @param {number} column
   * @param {number} row
   */
  find(column, row) {
    return (this.map?.cells ?? []).findIndex((cell) => cell[0] === column && cell[1] === row);
  }

  /** @param {KeyboardEvent} event goes to the next layer in a direction */
  move(event) {
    /** @type {Record<string, [number, number]>} */
    const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (!this.map || !(event.key in ways)) return;
    event.preventDefault();
    event.stopPropagation();
    const [right, down] = ways[event.key];
    let [column, row] = this.at < 0 ? [-right, -down] : this.map.cells[this.at];
    const { blocks, layers } = this.map;
    do {
      column += right;
      row += down;
      if (!(column in blocks) || !(row in layers)) return;
    } while (this.find(column, row) < 0);
    this.look(this.find(column, row));
  }

  /** @param {number} at shows the name, the values and the histogram of a layer */
  look(at) {
    if (at === this.at) return;
    this.at = at;
    this.tip.replaceChildren();
    this.draw();
    if (at < 0 || !this.map) return;
    const [column, row] = this.map.cells[at];
    this.tip.append(this.words(at), this.histogram(at));
    const x = LEFT + column * this.size().width;
    const right = x > this.plot.clientWidth / 2;
    this.tip.style.left = right ? "" : `${x + this.size().width + 6}px`;
    this.tip.style.right = right ? `${this.plot.clientWidth - x + 6}px` : "";
    const below = row < this.map.layers.length / 2;
    this.tip.style.top = below ? "0" : "";
    this.tip.style.bottom = below ? "" : "0";
  }

  /** @param {number} at */
  words(at) {
    const { blocks, layers, cells } = /** @type {MergeMap} */ (this.map);
    const [column, row, content, style, before, after] = cells[at];
    return [
      `${blocks[column]} · ${layers[row]}`,
      `mean |m|: content ${short(content)}, style ${short(style)}`,
      `layer cosine: ${short(before)} → ${short(after)}`,
    ].join("\n");
  }

  /** @param {number} at draws how the coefficients of a layer are spread */
  histogram(at) {
    const { histograms, range } = /** @type {MergeMap} */ (this.map);
    const [width, height] = [150, 44];
    const ratio = window.devicePixelRatio || 1;
    const canvas = make("canvas", { width: `${width * ratio}`, height: `${height * ratio}` });
    canvas.style.cssText = `width: ${width}px; height: ${height}px`;
    const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    context.scale(ratio, ratio);
    context.font = "10px system-ui, sans-serif";
    context.lineWidth = 1.5;
    const most = Math.max(1, ...histograms[at].flat());
    const colours = CURVES[isLight(this.element) ? "light" : "dark"];
    histograms[at].forEach((counts, concept) => {
      context.strokeStyle = context.fillStyle = colours[concept];
      context.beginPath();
      counts.forEach((count, bin) => {
        context.lineTo(((bin + 0.5) / counts.length) * width, 30 - (count / most) * 27);
      });
      context.stroke();
      context.fillText(["m_c", "m_s"][concept], width / 2 - 26 + 30 * concept, height - 2);
    });
    context.fillStyle = getComputedStyle(this.plot).color;
    context.fillText(short(range[0]), 0, height - 2);
    context.textAlign = "right";
    context.fillText(short(range[1]), width, height - 2);
    return canvas;
  }

  /** Says in words what is shown. */
  describe() {
    const what = this.map ? `Map of the UNet, ${this.quantity.label}` : "Map of the UNet, empty";
    const where = this.at < 0 ? "" : `: ${this.words(this.at).replaceAll("\n", "; ")}`;
    this.canvas.setAttribute("aria-label", what + where);
  }
}

/**
 * @param {any} map whether it is one
 * @returns {map is MergeMap}
 */
function isMap(map) {
  const { blocks, layers, cells, histograms, range } = map ?? {};
  return (
    [blocks, layers, cells, histograms, range].every(Array.isArray) &&
    cells.length > 0 && cells.length === histograms.length &&
    cells.every((/** @type {any} */ cell) => cell?.length === 6 && cell.every(Number.isFinite)) &&
    histograms.every((/** @type {any} */ both) => both?.length === 2 && both.every(Array.isArray))
  );
}

/** @param {string} block `input_blocks.4.1 · 0` as `in 4` */
function brief(block) {
  const [part, number = ""] = block.split(" ")[0].split(".");
  return `${part.replace("_blocks", "").replace("_block", "").replace("put", "")} ${number}`
    .replace("middle 1", "mid");
}

/** @type {WeakMap<import("./panel.js").Node, MapPanel>} */
const panels = new WeakMap();

app.registerExtension({
  name: "ziplora.merge_map",
  nodeCreated(/** @type {any} */ node) {
    if (!NODES.has(node.comfyClass)) return;
    const panel = new MapPanel(node);
    panels.set(node, panel);
    also(node, "onExecuted", (output) => panel.show(output));
    also(node, "onRemoved", () => panel.remove());
  },
  /** Called when another workflow tab, or a run of the history, is opened. */
  onNodeOutputsUpdated(/** @type {Record<string, unknown>} */ outputs) {
    for (const [locator, output] of Object.entries(outputs)) {
      panels.get(nodeOfOutput(locator) ?? {})?.show(output);
    }
  },
});
