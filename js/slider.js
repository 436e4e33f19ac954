// @ts-check
/**
 * A slider to touch on Concept Slider: how far, from − over 0 to +, and for which part of the
 * sampling. The number widgets stay what is saved and queued; this reads and writes them.
 */
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { also, classOf, make, makePanel, showOnNode } from "./panel.js";
import { accessors, Thumb } from "./thumb.js";
import { say } from "./words.js";

const NODE = "ConceptSlider";
const NONE = "None";
const HEIGHT = 96;
const NEAR = 5;
const FAR = 10;
const LEAST_WINDOW = 0.01;

class SliderPanel {
  /** @param {import("./panel.js").Node} node */
  constructor(node) {
    this.node = node;
    this.file = NONE;
    this.waiting = 0;
    /** @type {{ thumb: Thumb, track: HTMLElement, pointer: number } | null} what is dragged */
    this.held = null;
    /** Why no trained range is shown. */
    this.why = say("No file is chosen, so no trained range is known");
    /** @type {[number, number] | null} */
    this.range = null;
    this.reach = NEAR;
    const reach = () => /** @type {[number, number]} */ ([-this.reach, this.reach]);
    const all = () => /** @type {[number, number]} */ ([0, 1]);
    /** @type {Thumb} */
    this.scale = new Thumb(this, "scale", say("Scale"), reach, () => [-FAR, FAR], 0.05);
    /** @type {Thumb} */
    this.start = new Thumb(this, "start_percent", say("Start of the sampling window"), all,
      () => [0, Math.max(0, this.end.value - LEAST_WINDOW)], 0.01);
    /** @type {Thumb} */
    this.end = new Thumb(this, "end_percent", say("End of the sampling window"), all,
      () => [Math.min(1, this.start.value + LEAST_WINDOW), 1], 0.01);
    this.trained = make("div", { class: "trained" });
    this.moved = make("div", { class: "part" });
    this.window = make("div", { class: "part" });
    this.how = make("div", { class: "track" }, make("div", { class: "rail" }), this.trained,
      make("div", { class: "zero" }), this.moved, this.scale.element);
    this.when = make("div", { class: "track" }, make("div", { class: "rail" }), this.window,
      this.start.element, this.end.element);
    this.low = make("span");
    this.middle = make("span", {}, "0");
    this.high = make("span");
    this.said = make("span", { class: "numbers" });
    this.element = makePanel();
    this.element.style.gap = "0";
    this.element.append(
      this.how,
      make("div", { class: "ends numbers" }, this.low, this.middle, this.high),
      this.when,
      make("div", { class: "ends" }, make("span", {}, say("first step")), this.said,
        make("span", {}, say("last"))),
    );
    this.drag(this.how, [this.scale]);
    this.drag(this.when, [this.start, this.end]);
    showOnNode(node, "slider_control", "Slider of {title}", this.element, HEIGHT);
    for (const name of ["scale", "start_percent", "end_percent", "slider"]) this.follow(name);
    this.settle();
  }

  /**
   * Calls back after every change of a widget, by whomever.
   * @param {string} name
   */
  follow(name) {
    const widget = this.node.widgets?.find((w) => w.name === name);
    if (!widget) return;
    const { get, set } = accessors(widget);
    Object.defineProperty(widget, "value", {
      configurable: true,
      enumerable: true,
      get,
      set: (value) => {
        set(value);
        this.changed();
      },
    });
    also(widget, "callback", () => this.changed());
  }

  /** Once for all widgets that change together. */
  changed() {
    this.waiting ||= requestAnimationFrame(() => {
      this.waiting = 0;
      if (!this.held) this.settle();
    });
  }

  /** Ends a drag. */
  release() {
    this.held = null;
    app.canvas.emitAfterChange();
    this.settle();
  }

  /** @param {() => void} act changes something, as one step that can be undone */
  change(act) {
    app.canvas.emitBeforeChange();
    act();
    app.canvas.emitAfterChange();
    this.settle();
  }

  /** Shows what the widgets have, and makes the track as long as it needs to be. */
  settle() {
    const most = Math.max(Math.abs(this.scale.value), ...(this.range ?? []).map(Math.abs));
    // It stays long until another file is chosen: it would jump from under the pointer.
    if (most > NEAR) this.reach = FAR;
    this.show();
    this.read();
  }

  show() {
    const { scale, start, end, range } = this;
    const [low, high] = (range ?? []).map((limit) => String(limit).replace("-", "−"));
    const trained = range ? say("trained {low} to {high}", { low, high }) : "";
    const number = scale.value.toFixed(2).replace("-", "−");
    const share = scale.show([number, trained].filter(Boolean).join(", "));
    this.between(this.moved, 0.5, share);
    if (range) this.between(this.trained, ...this.shares(range));
    this.trained.hidden = !range;
    const known = trained || say("trained range unknown");
    this.middle.textContent = this.file === NONE ? "0" : `0 · ${known}`;
    this.low.textContent = `−${this.reach}`;
    this.high.textContent = `+${this.reach}`;
    const [from, to] = [start, end].map((thumb) => `${Math.round(100 * thumb.value)} %`);
    this.between(this.window, start.show(from), end.show(to));
    this.said.textContent = say("on from {start} to {end}", { start: from, end: to });
    this.mark(this.how, [scale], trained || this.why);
    this.mark(this.when, [start, end], say("the part of the sampling in which the slider is on"));
  }

  /** @param {[number, number]} range where it lies on the track */
  shares(range) {
    const [low, high] = range.map((v) => Math.min(1, Math.max(0, (v / this.reach + 1) / 2)));
    return /** @type {[number, number]} */ ([low, high]);
  }

  /**
   * @param {HTMLElement} element
   * @param {number} one
   * @param {number} other
   */
  between(element, one, other) {
    element.style.left = `${100 * Math.min(one, other)}%`;
    element.style.width = `${100 * Math.abs(one - other)}%`;
  }

  /**
   * @param {HTMLElement} track
   * @param {Thumb[]} thumbs
   * @param {string} what it shows
   */
  mark(track, thumbs, what) {
    const linked = thumbs.every((thumb) => thumb.linked);
    track.setAttribute("aria-disabled", String(linked));
    track.title = linked ? say("This number comes from another node.")
      : say("{what}; double-click: as at first", { what: what.replace(/[.。]$/, "") });
  }

  /** Reads how far the chosen file was trained, if that is another one now. */
  async read() {
    const widget = this.node.widgets?.find((w) => w.name === "slider");
    const file = String(widget?.value ?? NONE);
    if (file === this.file) return;
    this.file = file;
    this.range = null;
    this.reach = NEAR;
    this.why = say("No file is chosen, so no trained range is known");
    if (file !== NONE) {
      const said = await this.ask(file);
      if (file !== this.file) return;
      const known = Array.isArray(said.range) && said.range.length === 2;
      this.range = known && said.range.every(Number.isFinite) ? said.range : null;
      this.why = say(String(said.why ?? "The file does not say how far it was trained to be moved."));
    }
    this.settle();
  }

  /** @param {string} file */
  async ask(file) {
    try {
      const answer = await api.fetchApi(`/ziplora/slider?${new URLSearchParams({ name: file })}`);
      return await answer.json();
    } catch {
      return { why: say("The server does not say how far this file was trained.") };
    }
  }

  /**
   * Lets a track be dragged: the nearest of its thumbs comes along.
   * @param {HTMLElement} track
   * @param {Thumb[]} thumbs
   */
  drag(track, thumbs) {
    const valueAt = (/** @type {PointerEvent} */ event) => {
      const { left, width } = track.getBoundingClientRect();
      const [low, high] = thumbs[0].ends();
      return low + ((event.clientX - left) / width) * (high - low);
    };
    track.addEventListener("pointerdown", (event) => {
      // Where another finger has a thumb already, this one does nothing.
      if (event.button !== 0 || this.held?.track.hasPointerCapture(this.held.pointer)) return;
      if (this.held) this.release(); // its track was taken away from under the pointer
      event.preventDefault();
      event.stopPropagation();
      const value = valueAt(event);
      const free = thumbs.filter((thumb) => !thumb.linked);
      const far = (/** @type {Thumb} */ thumb) => Math.abs(thumb.value - value);
      // Of two in one place, the one that can go there.
      const first = (/** @type {Thumb} */ thumb) => (thumb === thumbs[0] ? 1 : -1);
      const [thumb] = free.sort((a, b) => far(a) - far(b) || Math.sign(value - a.value) * first(a));
      if (!thumb) return;
      this.held = { thumb, track, pointer: event.pointerId };
      app.canvas.emitBeforeChange();
      track.setPointerCapture(event.pointerId);
      thumb.element.focus({ preventScroll: true });
      thumb.set(value);
    });
    track.addEventListener("pointermove", (event) => {
      if (event.pointerId === this.held?.pointer) this.held.thumb.set(valueAt(event));
    });
    for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) {
      track.addEventListener(name, (event) => {
        const { pointerId } = /** @type {PointerEvent} */ (event);
        if (pointerId === this.held?.pointer) this.release();
      });
    }
    track.addEventListener("wheel", (event) => {
      // Elsewhere than at the thumb that has the focus, the wheel is the canvas's.
      const focused = thumbs.find((thumb) => thumb.element === document.activeElement);
      if (!focused || event.ctrlKey) return;
      event.preventDefault();
      event.stopPropagation();
      this.change(() => focused.set(focused.value - Math.sign(event.deltaY) * focused.step));
    }, { passive: false });
    track.addEventListener("dblclick", (event) => {
      event.stopPropagation();
      this.reach = NEAR;
      // Both at once: the first would otherwise stop at the other's old place.
      this.change(() => [...thumbs, ...thumbs].forEach((thumb) => thumb.set(thumb.standard)));
    });
  }
}

app.registerExtension({
  name: "ziplora.slider",
  nodeCreated(node) {
    if (classOf(node) !== NODE) return;
    const panel = new SliderPanel(node);
    also(node, "onConnectionsChange", () => panel.changed());
    also(node, "onConfigure", () => panel.changed());
  },
});
