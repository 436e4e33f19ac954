// @ts-check
/** What a training panel says: the words of a training and of a search, and their pace. */
import { short } from "./chart_axes.js";
import { say } from "./translations.js";

/** The training nodes, and whether they draw sample images. */
export const DRAWS = new Map([
  ["ZipLoRAOptimize", false],
  ["TrainDreamBoothLoRA", true],
  ["TrainConceptSlider", true],
  ["TrainConceptSliderFromImages", true],
  ["UnZipLoRATrain", true],
  ["FindMerge", true],
]);
/** Those that draw and judge images instead of learning from them. */
export const SEARCHES = new Set(["FindMerge"]);

/** The words of a training. */
export const TRAINING = {
  title: "Training of {title}",
  empty: "Loss, pace and memory appear here.",
  end: "End now and keep what was learned so far",
  ending: "Stopping after this step …",
  stopped: "Stopped, and kept what was learned.",
  step: "step {step} of {steps}",
  fast: "{speed} steps/s",
  slow: "{speed} s/step",
};

/** The words of a search, whose steps are images. */
export const SEARCH = {
  title: "Search of {title}",
  empty: "Pace and memory appear here.",
  end: "End now with the best so far",
  ending: "Stopping after this image …",
  stopped: "Stopped, with the best so far.",
  step: "image {step} of {steps}",
  fast: "{speed} images/s",
  slow: "{speed} s/image",
};

/**
 * Says how far a run is, how fast it is and how long it will take.
 * @param {import("./history.js").Message} message
 * @param {typeof TRAINING} says
 */
export function pace({ state, step, steps, prepared: [done, all], speed, memory, errors }, says) {
  const running = state === "running";
  const percent = Math.floor((100 * done) / all);
  const passes = Math.max(0, errors.length - 1); // the first error is that of the direct merge
  const parts = [];
  if (step || (steps && !running)) parts.push(say(says.step, { step, steps }));
  else if (steps && all) parts.push(say("preparing {percent} %", { percent }));
  else if (running && !all) parts.push(say("starting"));
  else if (running) parts.push(say("{percent} % done", { percent }));
  if (!steps && passes) parts.push(say(passes === 1 ? "{passes} pass" : "{passes} passes", { passes }));
  if (step && speed) {
    parts.push(speed >= 1 ? say(says.fast, { speed: short(speed) })
      : say(says.slow, { speed: short(1 / speed) }));
  }
  if (running) {
    const left = steps ? step && steps - step : all - done; // unknown before the first step
    if (speed && left > 0) parts.push(say("{time} left", { time: duration(left / speed) }));
    const [used, total] = (memory ?? []).map(gibibytes);
    if (memory) parts.push(say("{used} of {total} GiB in use", { used, total }));
  }
  return parts.join(" · ");
}

/**
 * Says how long something takes.
 * @param {number} seconds
 */
export function duration(seconds) {
  const whole = Math.round(seconds);
  const [hours, minutes, rest] = [whole / 3600, (whole % 3600) / 60, whole % 60].map(Math.floor);
  if (hours) return say("{hours} h {minutes} min", { hours, minutes });
  if (minutes) return say("{minutes} min {seconds} s", { minutes, seconds: rest });
  return say("{seconds} s", { seconds: rest });
}

/** @param {number} bytes */
function gibibytes(bytes) {
  return (bytes / 2 ** 30).toFixed(1);
}
