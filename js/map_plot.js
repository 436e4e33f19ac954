// @ts-check
/** Draws the map of a merge: one column per transformer block, one row per layer in a block. */
import { between, CURVES, SIGNS } from "./colours.js";
import { make } from "./panel.js";
import { Plot } from "./plot.js";
import { short } from "./chart_axes.js";
import { say } from "./translations.js";

const LEFT = 66;
const BOTTOM = 14;
/** The smallest row height at which a name is readable. */
const LINE = 8;

/**
 * @typedef {object} MergeMap See ziplora_core/ziplora/merge_map.py.
 * @property {string[]} blocks
 * @property {string[]} groups the short name of the UNet part that each block belongs to
 * @property {string[]} layers
 * @property {number[][]} cells column, row, and the four quantities
 * @property {[number, number]} range
 * @property {[number[], number[]][]} histograms
 */

/** The value that has the colour of the background, its meaning, and the cells' places that share its scale. */
const KEPT = { middle: 1, means: "1: as it is", places: [2, 3] };
const COSINE = { middle: 0, means: "0: independent", places: [4, 5] };

/**
 * The quantities to show: the index in a cell, the value in the middle of the colours and what it means,
 * and the places of all quantities on one scale, so that they can be compared.
 */
export const QUANTITIES = [
  { label: "how much of the content is kept", at: 2, ...KEPT },
  { label: "how much of the style is kept", at: 3, ...KEPT },
  { label: "layer cosine before", at: 4, ...COSINE },
  { label: "layer cosine after", at: 5, ...COSINE },
];

export class MapPlot extends Plot {
  /** @param {() => void} explain updates the colour legend whenever the colours may change */
  constructor(explain) {
    super();
    this.explain = explain;
    /** @type {MergeMap | null} */
    this.map = null;
    this.quantity = QUANTITIES[0];
  }

  /** @param {MergeMap} map */
  show(map) {
    this.map = map;
    this.look(-1);
  }

  /** The values of the first and the last colour. */
  get range() {
    const { middle, places } = this.quantity;
    const values = (this.map?.cells ?? []).flatMap((cell) => places.map((place) => cell[place]));
    const most = Math.max(1e-6, ...values.map((value) => Math.abs(value - middle)));
    return [middle - most, middle + most];
  }

  get colours() {
    return SIGNS[this.light ? "light" : "dark"];
  }

  /** @type {Plot["paint"]} */
  paint(context, { height, ink }) {
    context.fillStyle = ink;
    if (!this.map) return;
    this.explain();
    this.#names(context, this.map, height);
    const [low, high] = this.range;
    const gap = this.#cell.width > 4 ? 1 : 0;
    this.map.cells.forEach((cell, at) => {
      const { x, y, width, height } = this.#place(at);
      context.fillStyle = between(this.colours, (cell[this.quantity.at] - low) / (high - low || 1));
      context.fillRect(x, y, width - gap, height - 1);
    });
    if (this.at < 0) return;
    const { x, y, width, height: tall } = this.#place(this.at);
    context.strokeStyle = ink;
    context.lineWidth = 2;
    context.strokeRect(x, y, width, tall);
  }

  /** The size of a cell. */
  get #cell() {
    const { clientWidth, clientHeight } = this.element;
    const { blocks, layers } = this.map ?? { blocks: [""], layers: [""] };
    return {
      width: (clientWidth - LEFT) / blocks.length,
      height: (clientHeight - BOTTOM) / layers.length,
    };
  }

  /** @param {number} at the index of the cell to locate */
  #place(at) {
    const [column, row] = this.map?.cells[at] ?? [0, 0];
    const { width, height } = this.#cell;
    return { x: LEFT + column * width, y: row * height, width, height };
  }

  /**
   * Labels the rows, and the columns with their blocks.
   * @param {CanvasRenderingContext2D} context
   * @param {MergeMap} map
   * @param {number} height
   */
  #names(context, { groups, layers }, height) {
    const cell = this.#cell;
    context.textBaseline = "middle";
    const each = Math.ceil(LINE / cell.height);
    layers.forEach((layer, row) => {
      if (row % each === 0) context.fillText(layer, 0, (row + 0.5) * cell.height, LEFT - 4);
    });
    context.textBaseline = "bottom";
    let end = 0;
    groups.forEach((name, column) => {
      if (column && groups[column - 1] === name) return;
      const x = LEFT + column * cell.width;
      context.fillRect(x - 0.5, height - BOTTOM, 1, 4);
      if (x < end) return;
      context.fillText(name, x + 2, height);
      end = x + context.measureText(name).width + 6;
    });
  }

  /** @type {Plot["nearest"]} */
  nearest(event) {
    const { width, height } = this.#cell;
    const column = Math.floor((event.offsetX - LEFT) / width);
    return this.#find(column, Math.floor(event.offsetY / height));
  }

  /**
   * @param {number} column
   * @param {number} row
   */
  #find(column, row) {
    return this.map?.cells.findIndex((cell) => cell[0] === column && cell[1] === row) ?? -1;
  }

  /** @type {Plot["toward"]} the next layer in the direction of the key */
  toward(key) {
    const way = new Map([["ArrowLeft", [-1, 0]], ["ArrowRight", [1, 0]], ["ArrowUp", [0, -1]],
      ["ArrowDown", [0, 1]]]).get(key);
    if (!this.map || !way) return undefined;
    if (this.at < 0) return 0;
    const { blocks, layers, cells } = this.map;
    let [column, row] = cells[this.at];
    do {
      column += way[0];
      row += way[1];
      if (!(column in blocks) || !(row in layers)) return this.at;
    } while (this.#find(column, row) < 0);
    return this.#find(column, row);
  }

  /** @type {Plot["tell"]} */
  tell(at) {
    const { x, width } = this.#place(at);
    return { content: [this.#words(at), this.#histogram(at)], left: x, right: x + width };
  }

  /** @param {number} at */
  #words(at) {
    const { blocks, layers, cells } = /** @type {MergeMap} */ (this.map);
    const [column, row, content, style, before, after] = cells[at];
    return [
      `${blocks[column]} · ${layers[row]}`,
      say("mean |m|: content {content}, style {style}", {
        content: short(content), style: short(style),
      }),
      say("layer cosine: {before} → {after}", { before: short(before), after: short(after) }),
    ].join("\n");
  }

  /** @param {number} at the layer whose coefficients are drawn as a histogram */
  #histogram(at) {
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
    const colours = CURVES[this.light ? "light" : "dark"];
    histograms[at].forEach((counts, concept) => {
      context.strokeStyle = context.fillStyle = colours[concept];
      context.beginPath();
      counts.forEach((count, bin) => {
        context.lineTo(((bin + 0.5) / counts.length) * width, 28 - (count / most) * 25);
      });
      context.stroke();
      context.fillText(["m_c", "m_s"][concept], width / 2 - 26 + 30 * concept, height - 4);
    });
    context.fillStyle = getComputedStyle(this.element).color;
    context.fillText(short(range[0]), 0, height - 4);
    context.textAlign = "right";
    context.fillText(short(range[1]), width, height - 4);
    return canvas;
  }

  /** @type {Plot["describe"]} */
  describe() {
    if (!this.map) return say("Map of the UNet, empty");
    const where = this.at < 0 ? "" : `: ${this.#words(this.at).replaceAll("\n", "; ")}`;
    return say("Map of the UNet, {quantity}", { quantity: say(this.quantity.label) }) + where;
  }
}
