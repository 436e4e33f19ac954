// @ts-check
/** Two pictures in one place with a divider between them: before on the left, after on the right. */
import { make } from "./panel.js";
import { Strip } from "./strip.js";
import { say } from "./translations.js";

/** @typedef {import("./strip.js").Shown} Shown */

const STEP = 2;

/** A strip of several parts has the divider in each of them. */
export class Divider {
  /**
   * @param {Shown} before
   * @param {Shown} after
   */
  constructor(before, after) {
    this.names = { left: before.name, right: after.name };
    this.strip = new Strip();
    this.strip.show(before);
    const same = before.captions.length === after.captions.length;
    this.parts = same ? Math.max(1, before.captions.length) : 1;
    this.strip.write(same ? before.captions.map((one, n) => both(one, after.captions[n])) : []);
    this.handle = make("div", { class: "divider", role: "slider", tabindex: "0", autofocus: "", "aria-valuemin": "0",
      "aria-valuemax": "100", "aria-label": say("Divider") });
    this.handle.append(...Array.from({ length: this.parts }, () => make("span", {}, make("i"))));
    this.strip.stack.append(
      make("img", { class: "after", src: after.src, alt: after.alt, draggable: "false" }), this.handle);
    this.handle.addEventListener("keydown", (event) => this.#press(event));
    this.handle.addEventListener("pointerdown", (event) => this.#drag(event));
    this.percent = 50;
    this.set(this.percent);
  }

  get element() {
    return this.strip.element;
  }

  /** @param {number} percent of each part's width that shows what was before */
  set(percent) {
    this.percent = Math.min(100, Math.max(0, percent));
    this.strip.stack.style.setProperty("--at", `${this.percent}%`);
    this.handle.setAttribute("aria-valuenow", String(Math.round(this.percent)));
    this.handle.setAttribute("aria-valuetext", say("{percent} % {left}, then {right}",
      { percent: Math.round(this.percent), ...this.names }));
  }

  /** @param {KeyboardEvent} event */
  #press(event) {
    /** @type {Record<string, number>} */
    const to = {
      ArrowLeft: this.percent - STEP, ArrowDown: this.percent - STEP,
      ArrowRight: this.percent + STEP, ArrowUp: this.percent + STEP,
      PageDown: this.percent - 5 * STEP, PageUp: this.percent + 5 * STEP, Home: 0, End: 100,
    };
    if (!(event.key in to)) return;
    event.preventDefault();
    this.set(to[event.key]);
  }

  /** @param {PointerEvent} event that begins a drag, in one of the parts */
  #drag(event) {
    if (event.button !== 0) return;
    event.preventDefault();
    const { handle, parts } = this;
    const { left, width } = handle.getBoundingClientRect();
    const part = Math.min(parts - 1, Math.max(0, Math.floor(((event.clientX - left) / width) * parts)));
    const move = (/** @type {PointerEvent} */ { clientX }) => {
      this.set(100 * (((clientX - left) / width) * parts - part));
    };
    handle.focus({ preventScroll: true });
    handle.setPointerCapture(event.pointerId);
    handle.onpointermove = move;
    handle.onlostpointercapture = () => {
      handle.onpointermove = null;
    };
    move(event);
  }
}

/**
 * Returns what a part shows on both sides of its divider.
 * @param {string} before
 * @param {string} after
 */
function both(before, after) {
  return before === after ? say(before) : `${say(before)} | ${say(after)}`;
}
