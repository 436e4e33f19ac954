// @ts-check
/**
 * A chart of a few curves over steps: a faint line for all values, a bold one for the running mean.
 * Over passes, of which there are few, the chart draws dots. However many points there are, each
 * pixel column draws its extremes only.
 */
import { colourOf } from "./colours.js";
import { Plot } from "./plot.js";
import {
  below, columnsOf, distinct, nearest, scale, short, smooth, spanOf, ticks, valueRange, within,
} from "./chart_axes.js";
import { say } from "./translations.js";

/** The penalty is not an error: it has its own linear scale, on the right. */
const APART = "penalty";
/** So many values decide a running mean, up to one part in a billion. */
const ENOUGH = 200;
/** So many values have no running mean, as in ziplora_core/plots/curves.py. */
const FEW = 9;
const LEFT = 44;
const BOTTOM = 16;
const TOP = 6;

/** @typedef {import("./chart_axes.js").Values} Values */
/** @typedef {import("./chart_axes.js").Columns} Columns */

export class Chart extends Plot {
  /** @param {string} name for screen readers */
  constructor(name) {
    super();
    this.name = name;
    /** @type {number[]} */
    this.steps = [];
    /** @type {Map<string, Values>} */
    this.terms = new Map();
    /** @type {"step" | "pass"} the unit of the horizontal axis */
    this.unit = "step";
    this.logarithmic = true;
    /** The number of points and pixel columns in the last drawing. */
    this.drawn = { points: 0, columns: 0 };
  }

  /**
   * Shows new values.
   * @param {number[]} steps
   * @param {Map<string, Values>} terms
   */
  show(steps, terms) {
    this.steps = steps;
    this.terms = terms;
    this.look(this.at < steps.length ? this.at : -1);
  }

  /** @param {string} term */
  colour(term) {
    return colourOf(term, [...this.terms.keys()], this.light);
  }

  /** @param {string} term whose latest running mean, or value where there is none, is returned */
  latest(term) {
    const known = this.#known(term);
    return (this.#isExact(term) ? known : smooth(known.slice(-ENOUGH))).at(-1) ?? null;
  }

  /** @param {string} term of which the values that are numbers are returned */
  #known(term) {
    return (this.terms.get(term) ?? []).filter((value) => value !== null);
  }

  /** @param {string} term of which is told whether it is drawn without a running mean */
  #isExact(term) {
    return this.few || term === APART || this.#known(term).length <= FEW;
  }

  /** Returns the terms whose curves are too low to be seen. */
  unseen() {
    const errors = new Map([...this.terms].filter(([term]) => term !== APART));
    return this.logarithmic && !this.few ? below(errors) : new Set();
  }

  /** @type {Plot["paint"]} */
  paint(context, { width, height, ink }) {
    const columns = this.#columns;
    this.drawn = { points: 0, columns };
    if (columns < 4 || !this.terms.size) return;
    const curves = [...this.terms].map(([term, values]) => {
      const logarithmic = this.logarithmic && term !== APART && !this.few;
      return {
        apart: term === APART,
        colour: this.colour(term),
        raw: columnsOf(values, this.steps, columns, logarithmic),
        mean: columnsOf(
          this.#isExact(term) ? values : within(values, smooth(values)), this.steps, columns, logarithmic,
        ),
      };
    });
    const places = [false, true].map((apart) => {
      const logarithmic = this.logarithmic && !apart && !this.few;
      const beside = curves.filter((curve) => curve.apart === apart).map((curve) => curve.raw);
      const range = valueRange(beside, logarithmic);
      if (!range) return Number;
      const place = scale(range, logarithmic, TOP, height - BOTTOM);
      const own = apart ? this.colour(APART) : ink;
      this.#axis(context, ticks(range, logarithmic), place, { width, ink: own, apart });
      return place;
    });
    this.#stepAxis(context, { width, height, ink });
    context.save();
    context.beginPath();
    context.rect(LEFT - 4, TOP - 4, columns + 8, height - TOP - BOTTOM + 8);
    context.clip();
    context.lineJoin = "round";
    for (const { apart, colour, raw, mean } of curves) {
      const place = places[Number(apart)];
      context.strokeStyle = context.fillStyle = colour;
      context.globalAlpha = 0.35;
      context.lineWidth = 1;
      this.#line(context, raw, place);
      context.globalAlpha = 1;
      context.lineWidth = 1.75;
      this.#line(context, mean, place);
      if (this.few) this.#dots(context, mean, place);
    }
    context.restore();
    if (this.at >= 0) this.#cross(context, { height, ink });
  }

  /** Whether there are few values, each exact: on a linear scale and without a running mean. */
  get few() {
    return this.unit === "pass";
  }

  /** Width of the margin on the right. */
  get #right() {
    return this.terms.has(APART) ? 38 : 8;
  }

  /** Number of pixel columns for the curves. */
  get #columns() {
    return Math.floor(this.element.clientWidth - LEFT - this.#right);
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
   * @param {Columns} columns
   * @param {(value: number) => number} place
   */
  #dots(context, { high }, place) {
    high.forEach((value, column) => {
      if (Number.isNaN(value)) return;
      context.beginPath();
      context.arc(LEFT + column, place(value), 3, 0, 2 * Math.PI);
      context.fill();
    });
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
    const words = distinct(values);
    for (const [n, value] of values.entries()) {
      const y = Math.round(place(value)) + 0.5;
      context.fillText(words[n], apart ? width - this.#right + 5 : LEFT - 5, y);
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
   * @param {{ width: number, height: number, ink: string }} paper
   */
  #stepAxis(context, { width, height, ink }) {
    const [first, span] = spanOf(this.steps);
    context.fillStyle = ink;
    context.textBaseline = "bottom";
    if (this.few) {
      context.textAlign = "center";
      for (let at = 1; at + 1 < this.steps.length; at++) {
        context.fillText(String(this.steps[at]), this.#x(at), height);
      }
    }
    context.textAlign = "left";
    context.fillText(String(first), LEFT, height);
    context.textAlign = "right";
    context.fillText(this.#named(first + span), width - this.#right, height);
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {{ height: number, ink: string }} paper
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
    const [first, span] = spanOf(this.steps);
    return LEFT + ((this.steps[at] - first) / span) * this.#columns;
  }

  /** @type {Plot["nearest"]} */
  nearest(event) {
    const [first, span] = spanOf(this.steps);
    const wanted = first + ((event.offsetX - LEFT) / this.#columns) * span;
    return nearest(this.steps, wanted);
  }

  /** @type {Plot["toward"]} */
  toward(key) {
    const last = this.steps.length - 1;
    const far = Math.max(1, Math.round(last / 20));
    const at = this.at < 0 ? last : this.at;
    const to = new Map([["ArrowLeft", at - 1], ["ArrowRight", at + 1], ["PageDown", at - far],
      ["PageUp", at + far], ["Home", 0], ["End", last]]).get(key);
    return to === undefined ? undefined : Math.min(last, Math.max(0, to));
  }

  /** @type {Plot["tell"]} */
  tell(at) {
    const x = this.#x(at);
    const words = [this.#named(this.steps[at]), ...this.#values(at)].join("\n");
    return { content: [words], left: x, right: x };
  }

  /** @param {number} step or pass */
  #named(step) {
    return this.unit === "step" ? say("step {step}", { step }) : say("pass {pass}", { pass: step });
  }

  /** @param {number} at */
  #values(at) {
    return [...this.terms].map(([name, values]) => {
      const [term, value] = [say(name), values[at] ?? null];
      return value === null ? say("{term}: not a number", { term }) : `${term} ${short(value)}`;
    });
  }

  /** @type {Plot["describe"]} */
  describe() {
    const last = this.steps.length - 1;
    if (last < 0) return say("{name}: empty", { name: this.name });
    const at = this.at < 0 ? last : this.at;
    return `${this.name}, ${this.#named(this.steps[at])}: ${this.#values(at).join(", ")}`;
  }
}
