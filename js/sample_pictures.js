// @ts-check
/** The sample images that a training has drawn so far, with a slider to go through them. */
import { api } from "../../scripts/api.js";
import { nearest } from "./chart_axes.js";
import { opensLarge } from "./large_picture.js";
import { make } from "./panel.js";
import { Strip } from "./strip.js";
import { say } from "./translations.js";

/** @typedef {{ run?: string, samples: number[], captions?: (string[] | null)[] }} Offer */

/**
 * Returns the path of a running training's images.
 * @param {any} message
 * @param {number} step
 */
function ofRun({ node_id, workflow, run }, step) {
  return `/ziplora/training/${encodeURIComponent(node_id)}/samples/${step}?${new URLSearchParams({ workflow, run })}`;
}

export class SamplePictures {
  /**
   * @param {boolean} searches whether they are the best images of a search
   * @param {(offer: any, step: number) => string} [pathOf] returns the path of a step's images
   */
  constructor(searches, pathOf = ofRun) {
    this.pathOf = pathOf;
    this.words = searches
      ? { short: "after image {step}", long: "Best images after image {step}" }
      : { short: "step {step}", long: "Sample images of step {step}" };
    /** @type {Offer | null} */
    this.message = null;
    this.strip = new Strip();
    this.strip.element.hidden = true;
    opensLarge(this.strip.picture, () => this.#choice());
    this.none = make("span", {}, say(searches ? "The best images appear here." : "Sample images appear here, if any are drawn."));
    this.when = make("span", { class: "numbers" });
    this.scrub = make("input", { type: "range", min: "0", max: "0", class: "grow" });
    this.scrub.setAttribute("aria-label", say("Sample images over time"));
    this.scrub.disabled = true;
    this.scrub.addEventListener("input", () => this.#show());
    const frame = make("div", { class: "frame" }, this.strip.element, this.none);
    const row = make("div", { class: "row" }, this.scrub, this.when);
    this.element = make("div", { class: "pictures" }, frame, row);
  }

  /** @param {Offer} message names the available images */
  offer(message) {
    const { scrub } = this;
    const { samples } = message;
    const follows = scrub.value === scrub.max || message.run !== this.message?.run;
    this.message = message;
    scrub.max = String(Math.max(0, samples.length - 1));
    if (follows) scrub.value = scrub.max;
    scrub.disabled = samples.length < 2;
    this.strip.element.hidden = samples.length === 0;
    this.none.hidden = samples.length > 0;
    this.#show();
  }

  /**
   * Shows the images of the step nearest to this one.
   * @param {number} step
   */
  seek(step) {
    this.scrub.value = String(Math.max(0, nearest(this.message?.samples ?? [], step)));
    this.#show();
  }

  /** The step whose images are shown; undefined without any. */
  get step() {
    return this.message?.samples[Number(this.scrub.value)];
  }

  #show() {
    const { strip, when, scrub, message } = this;
    const at = Number(scrub.value);
    const step = message?.samples[at];
    when.textContent = step === undefined ? "" : say(this.words.short, { step });
    scrub.setAttribute("aria-valuetext", when.textContent);
    if (message && step !== undefined) strip.show(this.#shown(message, at));
  }

  /** Returns all images, with the ones that are shown; the first ones are the first to compare with. */
  #choice() {
    const { message } = this;
    const all = message ? message.samples.map((_, at) => this.#shown(message, at)) : [];
    const at = Number(this.scrub.value);
    return { all, at, other: at ? 0 : all.length - 1 };
  }

  /**
   * @param {Offer} message
   * @param {number} at place among the samples
   * @returns {import("./strip.js").Shown}
   */
  #shown(message, at) {
    const { samples, captions = [] } = message;
    const src = api.apiURL(this.pathOf(message, samples[at]));
    const said = captions.slice(0, at + 1).findLast((texts) => texts !== null) ?? [];
    const [name, alt] = [this.words.short, this.words.long].map((words) => say(words, { step: samples[at] }));
    return { src, name, alt, captions: said };
  }
}
