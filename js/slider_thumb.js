// @ts-check
/** The thumbs of js/slider.js, each bound to a number widget of the node. */
import { app } from "../../scripts/app.js";
import { isLinked } from "./number_widget.js";
import { make } from "./panel.js";

/**
 * @typedef {object} Owner The panel of a thumb.
 * @property {import("./panel.js").Node} node
 * @property {() => void} show
 * @property {(act: () => void) => void} change
 */

/** A thumb on a track, bound to one number widget, with its value above it. */
export class Thumb {
  /**
   * @param {Owner} panel
   * @param {string} name of the widget
   * @param {string} label
   * @param {() => [number, number]} ends of the track
   * @param {() => [number, number]} limits of this thumb
   * @param {number} step
   */
  constructor(panel, name, label, ends, limits, step) {
    this.panel = panel;
    this.name = name;
    this.ends = ends;
    this.limits = limits;
    this.step = step;
    this.element = make("div", { class: "thumb", role: "slider", tabindex: "0", "aria-label": label });
    this.element.addEventListener("keydown", (event) => this.onKey(event));
    this.number = make("div", { class: "value numbers", "aria-hidden": "true" });
  }

  get widget() {
    return this.panel.node.widgets?.find((w) => w.name === this.name);
  }

  get value() {
    return Number(this.widget?.value ?? 0);
  }

  get standard() {
    /** @type {any} */
    const { nodeData } = this.panel.node.constructor;
    const { required = {}, optional = {} } = nodeData?.input ?? {};
    return (required[this.name] ?? optional[this.name])?.[1]?.default ?? 0;
  }

  /** Whether the number comes from another node. */
  get linked() {
    return isLinked(this.panel.node, this.name);
  }

  /** Where the value lies on the track, 0…1. */
  get share() {
    const [low, high] = this.ends();
    return Math.min(1, Math.max(0, (this.value - low) / (high - low)));
  }

  /** @param {number} value is rounded to a multiple of the step and clamped to the limits */
  set(value) {
    if (this.linked || !this.widget) return;
    const [least, greatest] = this.limits();
    const stepped = Math.round(value / this.step) * this.step;
    const next = Number(Math.min(greatest, Math.max(least, stepped)).toFixed(4));
    if (next === this.value) return;
    this.widget.value = next;
    this.widget.callback?.(next, app.canvas, this.panel.node);
    this.panel.node.graph?.setDirtyCanvas(true, true);
    this.panel.show();
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    const [least, greatest] = this.limits();
    /** @type {Record<string, number>} */
    const to = {
      ArrowLeft: this.value - this.step, ArrowDown: this.value - this.step,
      ArrowRight: this.value + this.step, ArrowUp: this.value + this.step,
      PageDown: this.value - 10 * this.step, PageUp: this.value + 10 * this.step,
      Home: least, End: greatest, Delete: this.standard,
    };
    if (!(event.key in to)) return;
    event.preventDefault();
    event.stopPropagation();
    this.panel.change(() => this.set(to[event.key]));
  }

  /**
   * @param {string} text the value for screen readers
   * @param {string} short the value above the thumb
   * @param {boolean} wrong whether the value makes no sense
   */
  show(text, short, wrong = false) {
    const [least, greatest] = this.limits();
    this.element.style.left = `${100 * this.share}%`;
    this.element.tabIndex = this.linked ? -1 : 0;
    for (const [name, value] of Object.entries({
      valuemin: least, valuemax: greatest, valuenow: this.value, valuetext: text,
      disabled: this.linked, invalid: wrong,
    })) this.element.setAttribute(`aria-${name}`, String(value));
    this.put(this.linked ? "" : short, this.share);
  }

  /**
   * Writes a value above the track.
   * @param {string} short
   * @param {number} share where on the track
   * @param {number} [inset] how far it stays from the track's ends, in pixels
   */
  put(short, share, inset = 0) {
    this.number.textContent = short;
    this.number.style.left = `clamp(${inset}px, ${100 * share}%, 100% - ${inset}px)`;
  }
}
