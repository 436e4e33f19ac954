// @ts-check
/**
 * The control on Concept Slider: one track for the scale, from − over 0 to +, and one for the part
 * of the sampling in which the slider is on. It reads and writes the number widgets, which remain
 * the values that are saved and queued.
 */
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { onChange } from "./number_widget.js";
import { also, classOf, make, makePanel, showOnNode } from "./panel.js";
import { Thumb } from "./slider_thumb.js";
import { say } from "./translations.js";

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
    /** @type {{ thumb: Thumb, track: HTMLElement, pointer: number } | null} the dragged thumb */
    this.held = null;
    /** The reason why no trained range is shown. */
    this.why = say("No file is chosen, so the trained range is unknown");
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
   * Reacts to every change of a widget, whatever the source.
   * @param {string} name
   */
  follow(name) {
    const widget = this.node.widgets?.find((w) => w.name === name);
    if (widget) onChange(widget, () => this.changed());
  }

  /** Updates once for all widgets that change together. */
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

  /** @param {() => void} act makes a change that is undone as one step */
  change(act) {
    app.canvas.emitBeforeChange();
    act();
    app.canvas.emitAfterChange();
    this.settle();
  }

  /** Shows the values of the widgets, and extends the track if a value lies beyond it. */
  settle() {
    const most = Math.max(Math.abs(this.scale.value), ...(this.range ?? []).map(Math.abs));
    // It stays extended until another file is chosen: shrinking would move the thumb away from the
    // pointer.
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

  /** @param {[number, number]} range to convert to positions on the track */
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
   * @param {string} what the track shows
   */
  mark(track, thumbs, what) {
    const linked = thumbs.every((thumb) => thumb.linked);
    track.setAttribute("aria-disabled", String(linked));
    track.title = linked ? say("This number comes from another node.")
      : say("{what}; double-click to reset", { what: what.replace(/[.。]$/, "") });
  }

  /**
   * Reads the trained range of the chosen file, if another file was chosen.
   * @param {boolean} [again] whether to read it anyway: the file may have been replaced
   */
  async read(again = false) {
    const widget = this.node.widgets?.find((w) => w.name === "slider");
    const file = String(widget?.value ?? NONE);
    if (file === this.file && !again) return;
    if (file !== this.file) {
      this.file = file;
      this.range = null;
      this.reach = NEAR;
      this.why = say("No file is chosen, so the trained range is unknown");
    }
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
      return { why: say("The trained range could not be read from the server.") };
    }
  }

  /**
   * Makes a track draggable: a drag moves the nearest of its thumbs.
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
      // Ignored while another finger holds a thumb.
      if (event.button !== 0 || this.held?.track.hasPointerCapture(this.held.pointer)) return;
      if (this.held) this.release(); // the track was removed during the drag
      event.preventDefault();
      event.stopPropagation();
      const value = valueAt(event);
      const free = thumbs.filter((thumb) => !thumb.linked);
      const far = (/** @type {Thumb} */ thumb) => Math.abs(thumb.value - value);
      // Of two thumbs in one place, take the one that can move there.
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
      // Without a focused thumb, the wheel zooms the canvas.
      const focused = thumbs.find((thumb) => thumb.element === document.activeElement);
      if (!focused || event.ctrlKey) return;
      event.preventDefault();
      event.stopPropagation();
      this.change(() => focused.set(focused.value - Math.sign(event.deltaY) * focused.step));
    }, { passive: false });
    track.addEventListener("dblclick", (event) => {
      event.stopPropagation();
      this.reach = NEAR;
      // Set twice: otherwise the first thumb would stop at the other thumb's old position.
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
    also(node, "onExecuted", () => panel.read(true));
  },
});
