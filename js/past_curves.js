// @ts-check
/** The losses and the samples of past trainings, drawn as on a training's panel. */
import { Chart } from "./chart.js";
import { short } from "./chart_axes.js";
import { make } from "./panel.js";
import { pathOf } from "./past_data.js";
import { SamplePictures } from "./sample_pictures.js";
import { say } from "./translations.js";

/** @typedef {import("./past_data.js").Details} Details */
/** @typedef {import("./chart_axes.js").Values} Values */
/** @typedef {{ unit: "step" | "pass", steps: number[], terms: Map<string, Values> }} Curves */

/**
 * Returns the curves of a training: of a closed form, its error after each pass.
 * @param {Details} training
 * @returns {Curves}
 */
export function curvesOf({ points, errors }) {
  const { step: steps, ...terms } = points;
  if (!steps.length && errors.length) {
    return { unit: "pass", steps: errors.map((_, pass) => pass), terms: new Map([["error", errors]]) };
  }
  const all = Object.entries(terms);
  return { unit: "step", steps, terms: new Map(all.filter(([term]) => term !== "loss" || all.length === 1)) };
}

/**
 * Makes a chart with its legend.
 * @param {Curves} curves
 */
export function drawn({ unit, steps, terms }) {
  const name = unit === "pass" ? "Error of the predictions, as a share of the direct merge's" : "Loss";
  const chart = new Chart(say(name));
  chart.unit = unit;
  const legend = make("div", { class: "row numbers legend" });
  const explain = () => {
    legend.replaceChildren(...[...terms.keys()].map((term) => {
      const swatch = make("i", { "aria-hidden": "true" });
      swatch.style.background = chart.colour(term);
      const value = chart.latest(term);
      const where = chart.unseen().has(term) ? ` (${say("below the chart")})` : "";
      return make("span", {}, swatch, `${say(term)} ${value === null ? "–" : short(value)}${where}`);
    }));
  };
  chart.element.addEventListener("palette", explain);
  chart.show(steps, terms);
  requestAnimationFrame(explain); // the colours follow the background, once it is on the page
  return make("div", { class: "curves" }, chart.element, legend);
}

/**
 * Makes the sample images of a training; null without any.
 * @param {Details} training
 */
export function samplesOf(training) {
  if (!training.samples.length) return null;
  const pictures = new SamplePictures(false, ({ name }, step) => pathOf(name, `samples/${step}`));
  pictures.offer(training);
  return pictures;
}
