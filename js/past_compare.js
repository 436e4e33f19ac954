// @ts-check
/** Two past trainings side by side: losses in one chart, samples of the same step, other settings. */
import { make } from "./panel.js";
import { curvesOf, drawn, samplesOf } from "./past_curves.js";
import { how, titleOf, when } from "./past_words.js";
import { say } from "./translations.js";

/** @typedef {import("./past_data.js").Details} Details */
/** @typedef {import("./past_curves.js").Curves} Curves */

const LETTERS = ["A", "B"];

/**
 * Makes the view of two trainings.
 * @param {Details} one
 * @param {Details} other
 */
export function compared(one, other) {
  const pair = [one, other];
  const curves = pair.map(total);
  const alike = curves[0].unit === curves[1].unit;
  const pictures = pair.map(samplesOf);
  follow(pictures[0], pictures[1]);
  follow(pictures[1], pictures[0]);
  const last = Math.min(...pair.map(({ samples }) => samples.at(-1) ?? Infinity));
  for (const shown of pictures) shown?.seek(last);
  return [
    ...pair.map((training, n) => make("div", { class: "about" },
      make("strong", {}, LETTERS[n]), " ", titleOf(training),
      make("div", { class: "faint" }, how(training)),
      make("div", { class: "faint numbers" }, when(training)))),
    alike ? drawn(together(curves)) : make("p", {}, say("One has steps and the other passes: their losses cannot be compared.")),
    ...pictures.flatMap((shown, n) => (shown ? [make("h4", {}, LETTERS[n]), shown.element] : [])),
    make("h4", {}, say("Settings that differ")),
    differences(one, other),
  ];
}

/**
 * Returns the one curve of a training that says how well it learns.
 * @param {Details} training
 */
function total(training) {
  const { unit, steps, terms } = curvesOf(training);
  const values = unit === "step" ? training.points.loss ?? [] : terms.get("error") ?? [];
  return { unit, steps, values };
}

/**
 * Puts two curves over the steps of both.
 * @param {{ unit: "step" | "pass", steps: number[], values: (number | null)[] }[]} curves
 * @returns {Curves}
 */
function together(curves) {
  const steps = [...new Set(curves.flatMap((curve) => curve.steps))].sort((a, b) => a - b);
  const terms = new Map(curves.map(({ steps: own, values }, n) => {
    const known = new Map(own.map((step, at) => [step, values[at]]));
    return [LETTERS[n], steps.map((step) => known.get(step) ?? null)];
  }));
  return { unit: curves[0].unit, steps, terms };
}

/**
 * Shows the images of the same step when those of the other training are gone through.
 * @param {import("./sample_pictures.js").SamplePictures | null} leader
 * @param {import("./sample_pictures.js").SamplePictures | null} follower
 */
function follow(leader, follower) {
  if (!leader || !follower) return;
  leader.scrub.addEventListener("input", () => follower.seek(leader.step ?? 0));
}

/**
 * @param {Details} one
 * @param {Details} other
 */
function differences(one, other) {
  const [left, right] = [one, other].map(({ settings }) => new Map(
    settings.map(({ node, input, value }) => [node ? `${node}: ${input}` : input, String(value)]),
  ));
  const names = [...new Set([...left.keys(), ...right.keys()])];
  const differ = names.filter((name) => left.get(name) !== right.get(name));
  if (!differ.length) return make("p", { class: "faint" }, say("None."));
  const head = make("tr", {}, ...["", ...LETTERS].map((letter) => make("th", { scope: "col" }, letter)));
  const rows = differ.map((name) => make("tr", {}, make("th", { scope: "row" }, name),
    ...[left, right].map((values) => make("td", {}, values.get(name) ?? "–"))));
  return make("table", {}, head, ...rows);
}
