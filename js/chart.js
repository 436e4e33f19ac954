// @ts-check
/**
 * A chart of a few curves over steps, on a canvas: a faint line for every value, a strong one for
 * the running mean. However many points there are, each pixel column draws its extremes only.
 */
import { CURVES } from "./colours.js";
import { isLight, make, onPalette } from "./panel.js";
import { columnsOf, MEAN_OVER, scale, short, smooth, spanOf, ticks, valueRange } from "./scales.js";

const ORDER = ["content", "style", "penalty"];
const SAME = new Map([["instance", "content"], ["slider", "content"], ["high", "content"],
  ["prior", "style"], ["low", "style"]]);
/** Not an error: another scale, linear, on the right. */
const APART = "penalty";
const LEFT = 44;
const BOTTOM = 16;
const TOP = 6;

/** @typedef {import("./scales.js").Values} Values */
/** @typedef {import("./scales.js").Columns} Columns */

export class Chart {
  /** @param {string} name as a screen reader says it */
  constructor(name) {
    this.canvas = make("canvas", { role: "img", tabindex: "0" });
    this.tip = make("div", { class: "tip", "aria-hidden": "true" });
    this.element = make("div", { class: "plot" }, this.canvas, this.tip);
    this.name = name;
    /** @type {number[]} */
    this.steps = [];
    /** @type {Map<string, Values>} */
    this.terms = new Map();
    this.logarithmic = true;
    /** Where the values are shown: a number of a point, or none. */
    this.at = -1;
    /** Points and pixel columns of the last drawing. */
    this.drawn = { points: 0, columns: 0 };
    this.asked = 0;
    this.observer = new ResizeObserver(() => this.redraw());
    this.observer.observe(this.element);
    this.endPalette = onPalette(() => this.redraw());
    this.canvas.addEventListener("pointermove", (event) => this.#look(this.#nearest(event)));
    this.canvas.addEventListener("pointerleave", () => this.#look(-1));
    this.canvas.addEventListener("blur", () => this.#look(-1));
    this.canvas.addEventListener("keydown", (event) => this.#step(event));
  }

  /**
   * Shows other values.
   * @param {number[]} steps
   * @param {Map<string, Values>} terms
   */
  show(steps, terms) {
    this.steps = steps;
    this.terms = terms;
    this.#look(this.at < steps.length ? this.at : -1);
  }

  /** Draws before the next frame, once however often it is asked. */
  redraw() {
    this.asked ||= requestAnimationFrame(() => {
      this.asked = 0;
      this.draw();
    });
  }

  /** Leaves nothing running. */
  remove() {
    cancelAnimationFrame(this.asked);
    this.observer.disconnect();
    this.endPalette();
  }

  /** @param {string} term */
  colour(term) {
    const known = CURVES[isLight(this.element.parentElement ?? this.element) ? "light" : "dark"];
    const place = ORDER.indexOf(SAME.get(term) ?? term);
    if (place >= 0) return known[place];
    const others = [...this.terms.keys()].filter((t) => !ORDER.includes(SAME.get(t) ?? t));
    return known[3 + (Math.max(0, others.indexOf(term)) % 2)];
  }

  /** @param {string} term the mean of its last values */
  latest(term) {
    return smooth((this.terms.get(term) ?? []).slice(-MEAN_OVER)).at(-1) ?? null;
  }

  /** Draws now. */
  draw() {
    const { width, height } = this.#fit();
    const context = this.canvas.getContext("2d");
    if (!context || width < LEFT + this.#right + 4) return;
    const ink = getComputedStyle(this.element).color;
    context.clearRect(0, 0, width, height);
    context.font = "10px system-ui, sans-serif";
    const columns = Math.floor(width - LEFT - this.#right);
    const curves = [...this.terms].map(([term, values]) => {
      const logarithmic = this.logarithmic && term !== APART;
      return {
        apart: term === APART,
        colour: this.colour(term),
        raw: columnsOf(values, this.steps, columns, logarithmic),
        mean: columnsOf(smooth(values), this.steps, columns, logarithmic),
      };
    });
    this.drawn = { points: 0, columns };
    this.#describe();
    const places = [false, true].map((apart) => {
      const logarithmic = this.logarithmic && !apart;
      const columns = curves.filter((curve) => curve.apart === apart).map((curve) => curve.raw);
      const range = valueRange(columns, logarithmic);
      if (!range) return Number;
      const place = scale(range, logarithmic, TOP, height - BOTTOM);
      this.#axis(context, ticks(range, logarithmic), place, { width, ink, apart });
      return place;
    });
    if (!curves.length) return;
    this.#stepAxis(context, { width, height, ink });
    context.save();
    context.beginPath();
    context.rect(LEFT, TOP - 2, columns + 2, height - TOP - BOTTOM + 4);
    context.clip();
    context.lineJoin = "round";
    for (const { apart, colour, raw, mean } of curves) {
      const place = places[Number(apart)];
      context.strokeStyle = colour;
      context.globalAlpha = 0.35;
      context.lineWidth = 1;
      this.#line(context, raw, place);
      context.globalAlpha = 1;
      context.lineWidth = 1.75;
      this.#line(context, mean, place);
    }
    context.restore();
    if (this.at >= 0) this.#cross(context, { height, ink });
  }

  /** Matches the canvas to its element and the screen's pixels. */
  #fit() {
    const { clientWidth: width, clientHeight: height } = this.element;
    const ratio = window.devicePixelRatio || 1;
    const size = [Math.round(width * ratio), Math.round(height * ratio)];
    if (this.canvas.width !== size[0] || this.canvas.height !== size[1]) {
      [this.canvas.width, this.canvas.height] = size;
    }
    this.canvas.getContext("2d")?.setTransform(ratio, 0, 0, ratio, 0, 0);
    return { width, height };
  }

  /** Room at the right. */
  get #right() {
    return this.terms.has(APART) ? 38 : 8;
  }

  /** The first step, and how many there are up to the last. */
  #span() {
    return spanOf(this.steps);
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {Columns} columns
   * @param {(value: number) => number} place
   */
  #line(context, { low, high }, place) {
    context.beginPath();
    let points = 0;
    for (let column = 0; column < low.length; column++) {
      if (Number.isNaN(low[column])) continue;
      context.lineTo(LEFT + column, place(high[column]));
      points++;
      if (low[column] === high[column]) continue;
      context.lineTo(LEFT + column, place(low[column]));
      points++;
    }
    if (points === 1) context.lineTo(LEFT + 2, place(high.find((v) => !Number.isNaN(v)) ?? 0));
    context.stroke();
    this.drawn.points += points;
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {number[]} values
   * @param {(value: number) => number} place
   * @param {{ width: number, ink: string, apart: boolean }} how
   */
  #axis(context, values, place, { width, ink, apart }) {
    context.fillStyle = context.strokeStyle = ink;
    context.lineWidth = 1;
    context.textBaseline = "middle";
    context.textAlign = apart ? "left" : "right";
    for (const value of values) {
      const y = Math.round(place(value)) + 0.5;
      context.fillText(short(value), apart ? width - this.#right + 5 : LEFT - 5, y);
      if (apart) continue;
      context.globalAlpha = 0.15;
      context.beginPath();
      context.moveTo(LEFT, y);
      context.lineTo(width - this.#right, y);
      context.stroke();
      context.globalAlpha = 1;
    }
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {{ width: number, height: number, ink: string }} size
   */
  #stepAxis(context, { width, height, ink }) {
    const [first, span] = this.#span();
    context.fillStyle = ink;
    context.textBaseline = "bottom";
    context.textAlign = "left";
    context.fillText(String(first), LEFT, height);
    context.textAlign = "right";
    context.fillText(`step ${first + span}`, width - this.#right, height);
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {{ height: number, ink: string }} size
   */
  #cross(context, { height, ink }) {
    const x = Math.round(this.#x(this.at)) + 0.5;
    context.strokeStyle = ink;
    context.globalAlpha = 0.5;
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(x, TOP);
    context.lineTo(x, height - BOTTOM);
    context.stroke();
    context.globalAlpha = 1;
  }

  /** @param {number} at */
  #x(at) {
    const [first, span] = this.#span();
    const columns = Math.floor(this.element.clientWidth - LEFT - this.#right);
    return LEFT + ((this.steps[at] - first) / span) * columns;
  }

  /** @param {PointerEvent} event the point whose step is nearest to it */
  #nearest(event) {
    const [first, span] = this.#span();
    const columns = this.element.clientWidth - LEFT - this.#right;
    const wanted = first + ((event.offsetX - LEFT) / columns) * span;
    let low = 0;
    let high = this.steps.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.steps[middle] < wanted) low = middle + 1;
      else high = middle;
    }
    const before = low > 0 && wanted - this.steps[low - 1] < this.steps[low] - wanted;
    return before ? low - 1 : low;
  }

  /** @param {KeyboardEvent} event */
  #step(event) {
    const last = this.steps.length - 1;
    const far = Math.max(1, Math.round(last / 20));
    const at = this.at < 0 ? last : this.at;
    /** @type {Record<string, number>} */
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, PageDown: at - far, PageUp: at + far,
      Home: 0, End: last, Escape: -1 };
    if (!(event.key in to)) return;
    event.preventDefault();
    event.stopPropagation();
    this.#look(event.key === "Escape" ? -1 : Math.min(last, Math.max(0, to[event.key])));
  }

  /** @param {number} at shows the values of a point */
  #look(at) {
    this.at = this.steps.length ? at : -1;
    const lines = this.at < 0 ? [] : [`step ${this.steps[this.at]}`, ...this.#values(this.at)];
    this.tip.textContent = lines.join("\n");
    if (this.at >= 0) {
      const x = this.#x(this.at);
      const right = x > this.element.clientWidth / 2;
      this.tip.style.left = right ? "" : `${x + 8}px`;
      this.tip.style.right = right ? `${this.element.clientWidth - x + 8}px` : "";
      this.tip.style.top = "4px";
    }
    this.redraw();
  }

  /** @param {number} at */
  #values(at) {
    return [...this.terms].map(([term, values]) => {
      const value = values[at] ?? null;
      return `${term} ${value === null ? "not a number" : short(value)}`;
    });
  }

  /** Says in words what is drawn, and at which point one looks. */
  #describe() {
    const last = this.steps.length - 1;
    const values = last < 0 ? ["empty"] : this.#values(this.at < 0 ? last : this.at);
    const step = last < 0 ? "" : `, step ${this.steps[this.at < 0 ? last : this.at]}`;
    this.canvas.setAttribute("aria-label", `${this.name}${step}: ${values.join(", ")}`);
  }
}
