// @ts-check
/** The base of chart and map: a drawing whose values can be read by pointer and by keyboard. */
import { isLight, make } from "./panel.js";

const GAP = 6;
/** The zoom up to which a drawing stays sharp; one pixel of it is then four by four. */
const SHARPEST = 4;

/** @typedef {{ width: number, height: number, ink: string, light: boolean }} Paper Drawing area. */

export class Plot {
  constructor() {
    this.canvas = make("canvas", { role: "img", tabindex: "0" });
    this.tip = make("div", { class: "tip", "aria-hidden": "true" });
    this.element = make("div", { class: "plot" }, this.canvas, this.tip);
    /** The index of the selected point or cell; −1: none. */
    this.at = -1;
    this.asked = 0;
    new ResizeObserver(() => this.redraw()).observe(this.element);
    for (const event of ["palette", "zoom"]) {
      this.element.addEventListener(event, () => this.redraw());
    }
    for (const move of ["pointermove", "pointerdown"]) {
      this.canvas.addEventListener(move, (event) => {
        const at = this.nearest(/** @type {PointerEvent} */ (event));
        if (at !== this.at) this.look(at);
      });
    }
    for (const end of ["pointerleave", "blur"]) {
      this.canvas.addEventListener(end, () => this.look(-1));
    }
    this.canvas.addEventListener("keydown", (event) => this.#press(event));
  }

  /**
   * Draws on an empty canvas.
   * @param {CanvasRenderingContext2D} _context
   * @param {Paper} _paper
   * @abstract
   */
  paint(_context, _paper) {}

  /**
   * Returns the index of the item nearest to the pointer.
   * @param {PointerEvent} _event
   * @returns {number}
   * @abstract
   */
  nearest(_event) {
    return -1;
  }

  /**
   * Returns the index that a key moves to; undefined for any other key.
   * @param {string} _key
   * @returns {number | undefined}
   * @abstract
   */
  toward(_key) {
    return undefined;
  }

  /**
   * Returns the tip's content for an item.
   * @param {number} _at
   * @returns {{ content: (Element | string)[], left: number, right: number }} with the item's position
   * @abstract
   */
  tell(_at) {
    return { content: [], left: 0, right: 0 };
  }

  /**
   * Describes the drawing and the selected item in words.
   * @returns {string}
   * @abstract
   */
  describe() {
    return "";
  }

  /** @param {number} at the item to select and show in the tip */
  look(at) {
    this.at = at;
    const { content, left, right } = at < 0 ? { content: [], left: 0, right: 0 } : this.tell(at);
    this.tip.replaceChildren(...content);
    const width = this.tip.offsetWidth;
    const room = this.element.clientWidth - width;
    const beside = right + GAP <= room ? right + GAP : left - GAP - width;
    this.tip.style.left = `${Math.max(0, Math.min(room, beside))}px`;
    this.redraw();
  }

  /** Schedules one drawing before the next frame, however often it is called. */
  redraw() {
    this.asked ||= requestAnimationFrame(() => {
      this.asked = 0;
      this.draw();
    });
  }

  /** Draws immediately. */
  draw() {
    const { clientWidth: width, clientHeight: height } = this.element;
    const context = this.canvas.getContext("2d");
    if (!context || !width || !height) return;
    // Where the canvas of the workflow is zoomed in, a pixel of the style is several on the screen.
    const zoom = this.element.getBoundingClientRect().width / width;
    const ratio = (window.devicePixelRatio || 1) * Math.min(Math.max(zoom, 1), SHARPEST);
    const size = [Math.round(width * ratio), Math.round(height * ratio)];
    if (this.canvas.width !== size[0] || this.canvas.height !== size[1]) {
      [this.canvas.width, this.canvas.height] = size;
    }
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    context.font = "10px system-ui, sans-serif";
    const ink = getComputedStyle(this.element).color;
    this.paint(context, { width, height, ink, light: this.light });
    this.canvas.setAttribute("aria-label", this.describe());
  }

  /** Whether the background is light. */
  get light() {
    return isLight(this.element.parentElement ?? this.element);
  }

  /** @param {KeyboardEvent} event */
  #press(event) {
    const closes = event.key === "Escape" && this.at >= 0;
    const at = closes ? -1 : this.toward(event.key);
    if (at === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    this.look(at);
  }
}
