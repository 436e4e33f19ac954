// @ts-check
/** The named tracks of js/slider.js, each with one thumb or two: a drag moves the nearest of them. */
import { app } from "../../scripts/app.js";
import { make } from "./panel.js";
import { say } from "./translations.js";

/** @typedef {import("./slider_thumb.js").Thumb} Thumb */

/**
 * @typedef {object} Held The thumb that a drag moves, of all tracks of a panel.
 * @property {Thumb} thumb
 * @property {HTMLElement} track
 * @property {number} pointer
 */

/**
 * @typedef {object} Owner The panel of a track.
 * @property {Held | null} held
 * @property {() => void} release
 * @property {() => void} forget
 * @property {(act: () => void) => void} change
 */

export class Track {
  /**
   * @param {Owner} panel
   * @param {string} name
   * @param {Thumb[]} thumbs
   * @param {Element[]} marks what lies on the track, below the thumbs
   * @param {string[]} ends what is written under its ends, and under its middle
   */
  constructor(panel, name, thumbs, marks, ends) {
    this.panel = panel;
    this.thumbs = thumbs;
    this.said = make("span", { class: "said" });
    this.line = make("div", { class: "track" }, make("div", { class: "rail" }), ...marks,
      ...thumbs.flatMap(({ element, number }) => [element, number]));
    this.ends = ends.map((text) => make("span", {}, text));
    this.element = make("div", { class: "named" },
      make("div", { class: "name" }, make("b", {}, name), this.said),
      this.line, make("div", { class: "ends numbers" }, ...this.ends));
    this.#follow();
  }

  /**
   * Says what the track shows.
   * @param {string} what beside its name
   * @param {string} more when the pointer rests on it
   * @param {string} standard the value that a double click sets
   * @param {boolean} [wrong] whether its values make no sense
   */
  mark(what, more, standard, wrong = false) {
    const linked = this.thumbs.every((thumb) => thumb.linked);
    this.line.setAttribute("aria-disabled", String(linked));
    this.line.title = linked ? say("This number comes from another node.")
      : say("{what}; double-click to reset to {value}", { what: more.replace(/[.。]$/, ""), value: standard });
    this.said.textContent = this.said.title = what;
    this.element.toggleAttribute("data-wrong", wrong);
  }

  #follow() {
    const { line, panel, thumbs } = this;
    line.addEventListener("pointerdown", (event) => this.#take(event));
    line.addEventListener("pointermove", (event) => {
      if (event.pointerId === panel.held?.pointer) panel.held.thumb.set(this.#valueAt(event));
    });
    for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) {
      line.addEventListener(name, (event) => {
        const { pointerId } = /** @type {PointerEvent} */ (event);
        if (pointerId === panel.held?.pointer) panel.release();
      });
    }
    line.addEventListener("wheel", (event) => {
      // Without a focused thumb, the wheel zooms the canvas.
      const focused = thumbs.find((thumb) => thumb.element === document.activeElement);
      if (!focused || event.ctrlKey) return;
      event.preventDefault();
      event.stopPropagation();
      panel.change(() => focused.set(focused.value - Math.sign(event.deltaY) * focused.step));
    }, { passive: false });
    line.addEventListener("dblclick", (event) => {
      event.stopPropagation();
      panel.forget();
      // Set twice: otherwise the first thumb would stop at the other thumb's old position.
      panel.change(() => [...thumbs, ...thumbs].forEach((thumb) => thumb.set(thumb.standard)));
    });
  }

  /** @param {PointerEvent} event */
  #take(event) {
    const { line, panel, thumbs } = this;
    // Ignored while another finger holds a thumb.
    if (event.button !== 0 || panel.held?.track.hasPointerCapture(panel.held.pointer)) return;
    if (panel.held) panel.release(); // the track was removed during the drag
    event.preventDefault();
    event.stopPropagation();
    const value = this.#valueAt(event);
    const free = thumbs.filter((thumb) => !thumb.linked);
    const far = (/** @type {Thumb} */ thumb) => Math.abs(thumb.value - value);
    // Of two thumbs in one place, take the one that can move there.
    const first = (/** @type {Thumb} */ thumb) => (thumb === thumbs[0] ? 1 : -1);
    const [thumb] = free.sort((a, b) => far(a) - far(b) || Math.sign(value - a.value) * first(a));
    if (!thumb) return;
    panel.held = { thumb, track: line, pointer: event.pointerId };
    app.canvas.emitBeforeChange();
    line.setPointerCapture(event.pointerId);
    thumb.element.focus({ preventScroll: true });
    thumb.set(value);
  }

  /** @param {PointerEvent} event */
  #valueAt(event) {
    const { left, width } = this.line.getBoundingClientRect();
    const [low, high] = this.thumbs[0].ends();
    return low + ((event.clientX - left) / width) * (high - low);
  }
}

/**
 * Makes a part of a track.
 * @param {string} kind its class
 */
export function part(kind) {
  return make("div", { class: kind });
}

/**
 * Lays a part between two places of its track.
 * @param {HTMLElement} element
 * @param {number} one 0…1
 * @param {number} other 0…1
 */
export function lay(element, one, other) {
  element.style.left = `${100 * Math.min(one, other)}%`;
  element.style.width = `${100 * Math.abs(one - other)}%`;
}
