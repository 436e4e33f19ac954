// @ts-check
/** What the chart and the map share: a drawing that can be looked into, by pointer and by keys. */
import { isLight, make } from "./panel.js";

const GAP = 6;

/** @typedef {{ width: number, height: number, ink: string, light: boolean }} Paper Of a drawing. */

export class Plot {
  constructor() {
    this.canvas = make("canvas", { role: "img", tabindex: "0" });
    this.tip = make("div", { class: "tip", "aria-hidden": "true" });
    this.element = make("div", { class: "plot" }, this.canvas, this.tip);
    /** What one looks at: the number of a point, or of a cell; −1: at none. */
    this.at = -1;
    this.asked = 0;
    new ResizeObserver(() => this.redraw()).observe(this.element);
    this.element.addEventListener("palette", () => this.redraw());
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
   * Draws on paper that is empty.
   * @param {CanvasRenderingContext2D} _context
   * @param {Paper} _paper
   * @abstract
   */
  paint(_context, _paper) {}

  /**
   * What is nearest to the pointer.
   * @param {PointerEvent} _event
   * @returns {number}
   * @abstract
   */
  nearest(_event) {
    return -1;
  }

  /**
   * What a key goes to; none for a key that goes nowhere.
   * @param {string} _key
   * @returns {number | undefined}
   * @abstract
   */
  toward(_key) {
    return undefined;
  }

  /**
   * What the tip says of something.
   * @param {number} _at
   * @returns {{ content: (Element | string)[], left: number, right: number }} and where that is
   * @abstract
   */
  tell(_at) {
    return { content: [], left: 0, right: 0 };
  }

  /**
   * Says in words what is drawn, and what one looks at.
   * @returns {string}
   * @abstract
   */
  describe() {
    return "";
  }

  /** @param {number} at is told of in the tip */
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

  /** Draws before the next frame, once however often it is asked. */
  redraw() {
    this.asked ||= requestAnimationFrame(() => {
      this.asked = 0;
      this.draw();
    });
  }

  /** Draws now. */
  draw() {
    const { clientWidth: width, clientHeight: height } = this.element;
    const context = this.canvas.getContext("2d");
    if (!context || !width || !height) return;
    const ratio = window.devicePixelRatio || 1;
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

  /** Whether what it is drawn on is light. */
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
