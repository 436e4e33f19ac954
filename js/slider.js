// @ts-check
/**
 * The control on Concept Slider: one track for the strength, from − over 0 to +, and one for the part
 * of the sampling in which the slider is on. It reads and writes the number widgets, which remain
 * the values that are saved and queued.
 */
import { app } from "../../scripts/app.js";
import { isLinked, onChange } from "./number_widget.js";
import { also, classOf, makePanel, showOnNode, showsOutputs } from "./panel.js";
import { NO_FILE, rangeOfFile, rangeOfOutput } from "./slider_range.js";
import { Thumb } from "./slider_thumb.js";
import { lay, part, Track } from "./slider_track.js";
import { say } from "./translations.js";

const NODE = "ConceptSlider";
const MODEL = "slider_model";
const NONE = "None";
const HEIGHT = 126;
const NEAR = 5;
const FAR = 10;
const LEAST_WINDOW = 0.01;
/** The distance of two thumbs, as a share of the track, below which their values would overlap. */
const CLOSE = 0.16;
/** How far the values of both stay from the track's ends, so that they are not cut off, in pixels. */
const INSET = 24;

class SliderPanel {
  /** @param {import("./panel.js").Node} node */
  constructor(node) {
    this.node = node;
    this.file = NONE;
    this.waiting = 0;
    /** @type {import("./slider_track.js").Held | null} the dragged thumb */
    this.held = null;
    /** @type {import("./slider_range.js").Known} the trained range of the file */
    this.ofFile = { range: null, why: say(NO_FILE) };
    /** @type {import("./slider_range.js").Known} the trained range of the LoRA in the last run */
    this.ofRun = { range: null, why: say("The trained range appears here after a run.") };
    this.reach = NEAR;
    const reach = () => /** @type {[number, number]} */ ([-this.reach, this.reach]);
    const all = () => /** @type {[number, number]} */ ([0, 1]);
    /** @type {Thumb} */
    this.scale = new Thumb(this, "scale", say("Strength"), reach, () => [-FAR, FAR], 0.05);
    /** @type {Thumb} */
    this.start = new Thumb(this, "start_percent", say("Start of the sampling window"), all,
      () => [0, Math.max(0, this.end.value - LEAST_WINDOW)], 0.01);
    /** @type {Thumb} */
    this.end = new Thumb(this, "end_percent", say("End of the sampling window"), all,
      () => [Math.min(1, this.start.value + LEAST_WINDOW), 1], 0.01);
    this.trained = part("trained");
    this.moved = part("part");
    this.beyond = part("part beyond");
    this.window = part("part");
    this.how = new Track(this, say("Strength"), [this.scale],
      [this.trained, part("zero"), this.moved, this.beyond], ["", "0", ""]);
    this.when = new Track(this, say("When"), [this.start, this.end],
      [this.window], [say("first step"), "", say("last")]);
    this.element = makePanel();
    this.element.classList.add("slider");
    this.element.append(this.how.element, this.when.element);
    showOnNode(node, "slider_control", "Slider of {title}", this.element, HEIGHT);
    for (const name of ["scale", "start_percent", "end_percent", "slider"]) this.follow(name);
    this.settle();
  }

  /** The trained range of what is connected or chosen. */
  get known() {
    return isLinked(this.node, "slider") || this.#hasModel ? this.ofRun : this.ofFile;
  }

  get #hasModel() {
    return (this.node.inputs ?? []).some(({ name, link }) => name === MODEL && link != null);
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

  /** Lets the track be as short as its values allow. */
  forget() {
    this.reach = NEAR;
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
    const most = Math.max(Math.abs(this.scale.value), ...(this.known.range ?? []).map(Math.abs));
    // It stays extended until another file is chosen: shrinking would move the thumb away from the
    // pointer.
    if (most > NEAR) this.reach = FAR;
    this.show();
    this.read();
  }

  show() {
    this.#showStrength();
    this.#showWindow();
  }

  #showStrength() {
    const { scale, how, known: { range, why } } = this;
    const { value } = scale;
    const [low, high] = range ?? [-Infinity, Infinity];
    const limits = { low: signed(low), high: signed(high) };
    const isBeyond = !scale.linked && (value < low || value > high);
    const edge = value > 0 ? Math.min(value, Math.max(0, high)) : Math.max(value, Math.min(0, low));
    const words = isBeyond ? "beyond the trained {low} to {high}" : "trained {low} to {high}";
    const trained = range ? say(words, limits) : "";
    const number = signed(value.toFixed(2));
    scale.show([number, trained].filter(Boolean).join(", "), number);
    scale.element.toggleAttribute("data-beyond", isBeyond);
    how.said.toggleAttribute("data-beyond", isBeyond);
    lay(this.moved, 0.5, this.#at(edge));
    lay(this.beyond, this.#at(edge), scale.share);
    lay(this.trained, this.#at(low), this.#at(high));
    this.beyond.hidden = !isBeyond;
    this.trained.hidden = !range;
    [how.ends[0].textContent, how.ends[2].textContent] = [`−${this.reach}`, `+${this.reach}`];
    const isChosen = this.file !== NONE || this.known === this.ofRun;
    how.mark(trained || (isChosen ? say("trained range unknown") : ""), trained || why, signed(scale.standard));
  }

  #showWindow() {
    const { start, end, when, window } = this;
    const isWrong = !start.linked && !end.linked && start.value >= end.value;
    const [from, to] = [start, end].map(({ value }) => percent(value));
    start.show(from, from, isWrong);
    end.show(to, to, isWrong);
    if (!start.linked && !end.linked && Math.abs(end.share - start.share) < CLOSE) {
      start.put(`${from} – ${to}`, (start.share + end.share) / 2, INSET);
      end.put("", end.share);
    }
    lay(window, start.share, end.share);
    const on = say("on from {start} to {end}", { start: from, end: to });
    const wrong = say("ends before it starts: it is never on");
    const standard = say("{start} to {end}", { start: percent(start.standard), end: percent(end.standard) });
    when.mark(isWrong ? wrong : on,
      isWrong ? wrong : say("the part of the sampling in which the slider is on"), standard, isWrong);
  }

  /** @param {number} value whose place on the track of strengths is returned, 0…1 */
  #at(value) {
    return Math.min(1, Math.max(0, (value / this.reach + 1) / 2));
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
      this.ofFile = { range: null, why: say(NO_FILE) };
      this.forget();
    }
    if (file !== NONE) {
      const known = await rangeOfFile(file);
      if (file !== this.file) return;
      this.ofFile = known;
    }
    this.settle();
  }

  /** @param {any} output of the node, with the trained range of the LoRA that it has run with */
  take(output) {
    const known = rangeOfOutput(output);
    if (!known) return;
    this.ofRun = known;
    this.settle();
  }
}

/** @param {number | string} number to write with a minus sign */
function signed(number) {
  return String(number).replace("-", "−");
}

/** @param {number} share */
function percent(share) {
  return `${Math.round(100 * share)} %`;
}

/** @type {WeakMap<import("./panel.js").Node, SliderPanel>} */
const panels = new WeakMap();

app.registerExtension({
  name: "ziplora.slider",
  nodeCreated(node) {
    if (classOf(node) !== NODE) return;
    const panel = new SliderPanel(node);
    panels.set(node, panel);
    also(node, "onConnectionsChange", () => panel.changed());
    also(node, "onConfigure", () => panel.changed());
    also(node, "onExecuted", (output) => {
      panel.take(output);
      panel.read(true);
    });
  },
  ...showsOutputs((node, output) => panels.get(node)?.take(output)),
});
