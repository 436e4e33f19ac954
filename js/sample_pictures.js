// @ts-check
/** The sample images that a training has drawn so far, with a slider to go through them. */
import { api } from "../../scripts/api.js";
import { opensLarge } from "./large_picture.js";
import { make } from "./panel.js";
import { say } from "./translations.js";

export class SamplePictures {
  /** @param {boolean} searches whether they are the best images of a search */
  constructor(searches) {
    this.words = searches
      ? { short: "after image {step}", long: "Best images after image {step}" }
      : { short: "step {step}", long: "Sample images of step {step}" };
    /** @type {import("./history.js").Message | null} */
    this.message = null;
    this.picture = make("img", { alt: "", draggable: "false" });
    this.picture.hidden = true;
    opensLarge(this.picture);
    this.none = make("span", {}, say(searches ? "The best images appear here." : "Sample images appear here, if any are drawn."));
    this.when = make("span", { class: "numbers" });
    this.scrub = make("input", { type: "range", min: "0", max: "0", class: "grow" });
    this.scrub.setAttribute("aria-label", say("Sample images over time"));
    this.scrub.disabled = true;
    this.scrub.addEventListener("input", () => this.#show());
    const frame = make("div", { class: "frame" }, this.picture, this.none);
    const row = make("div", { class: "row" }, this.scrub, this.when);
    this.element = make("div", { class: "pictures" }, frame, row);
  }

  /** @param {import("./history.js").Message} message names the available images */
  offer(message) {
    const { scrub } = this;
    const { samples } = message;
    const follows = scrub.value === scrub.max || message.run !== this.message?.run;
    this.message = message;
    scrub.max = String(Math.max(0, samples.length - 1));
    if (follows) scrub.value = scrub.max;
    scrub.disabled = samples.length < 2;
    this.picture.hidden = samples.length === 0;
    this.none.hidden = samples.length > 0;
    this.#show();
  }

  #show() {
    const { picture, when, scrub, message } = this;
    const step = message?.samples[Number(scrub.value)];
    when.textContent = step === undefined ? "" : say(this.words.short, { step });
    scrub.setAttribute("aria-valuetext", when.textContent);
    if (!message || step === undefined) return;
    const place = `/ziplora/training/${encodeURIComponent(message.node_id)}/samples/${step}`;
    const which = new URLSearchParams({ workflow: message.workflow, run: message.run });
    const source = api.apiURL(`${place}?${which}`);
    if (picture.getAttribute("src") !== source) picture.setAttribute("src", source);
    picture.alt = say(this.words.long, { step });
  }
}
