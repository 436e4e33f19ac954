// @ts-check
/** The arithmetic of a chart: means, extremes, ranges and round numbers. */

/** The share of the latest value in the running mean, which follows about the last 20. */
const LATEST = 0.1;
/** The most powers of ten that a logarithmic scale shows. */
const DECADES = 3;

/** @typedef {(number | null)[]} Values */
/** @typedef {{ low: Float64Array, high: Float64Array }} Columns Extremes of each pixel column; NaN: no value. */

/**
 * Returns the first step and the number of steps from it to the last.
 * @param {number[]} steps
 */
export function spanOf(steps) {
  const first = steps[0] ?? 0;
  return [first, Math.max(1, (steps.at(-1) ?? 0) - first)];
}

/**
 * Returns the index of the nearest step; −1 without steps.
 * @param {number[]} steps
 * @param {number} wanted
 */
export function nearest(steps, wanted) {
  let low = 0;
  let high = steps.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (steps[middle] < wanted) low = middle + 1;
    else high = middle;
  }
  const before = low > 0 && wanted - steps[low - 1] < steps[low] - wanted;
  return steps.length ? low - Number(before) : -1;
}

/**
 * Computes the extremes of each pixel column.
 * @param {Values} values
 * @param {number[]} steps the step of each value
 * @param {number} count the number of columns between the first step and the last
 * @param {boolean} logarithmic
 * @returns {Columns}
 */
export function columnsOf(values, steps, count, logarithmic) {
  const low = new Float64Array(count + 1).fill(NaN);
  const high = low.slice();
  const [first, span] = spanOf(steps);
  for (let n = 0; n < values.length; n++) {
    const value = values[n];
    if (value === null || (logarithmic && value <= 0)) continue;
    const column = Math.round(((steps[n] - first) / span) * count);
    if (!(low[column] <= value)) low[column] = value;
    if (!(high[column] >= value)) high[column] = value;
  }
  return { low, high };
}

/**
 * Computes the running mean: of all values up to each, the later ones count more. No value leaves it
 * at once, which would bend the curve.
 * @param {Values} values
 * @returns {Values}
 */
export function smooth(values) {
  let sum = 0;
  let weight = 0;
  return values.map((value) => {
    if (value !== null) {
      sum = (1 - LATEST) * sum + LATEST * value;
      weight = (1 - LATEST) * weight + LATEST;
    }
    return weight ? sum / weight : null;
  });
}

/**
 * Leaves out means where there is no value: a curve ends where its values do.
 * @param {Values} values
 * @param {Values} means
 * @returns {Values}
 */
export function within(values, means) {
  return means.map((mean, n) => (values[n] === null ? null : mean));
}

/**
 * Tells which curves a logarithmic scale leaves out, as all their values are below its range.
 * @param {Map<string, Values>} terms
 * @returns {Set<string>}
 */
export function below(terms) {
  const greatest = new Map([...terms].map(([term, values]) => [term, values.reduce(larger, 0)]));
  const least = Math.max(0, ...greatest.values()) * 10 ** -DECADES;
  return new Set([...greatest].filter(([, value]) => value < least).map(([term]) => term));
}

/**
 * @param {number} one
 * @param {number | null} other
 */
function larger(one, other) {
  return Math.max(one, other ?? 0);
}

/**
 * Formats a number in few characters.
 * @param {number} value
 * @param {number} [digits]
 */
export function short(value, digits = 3) {
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e5)) {
    return value.toExponential(digits - 1).replace(/\.?0*e/, "e").replace("e+", "e");
  }
  return String(Number(value.toPrecision(digits)));
}

/**
 * Formats numbers in as few characters as keep them distinct.
 * @param {number[]} values
 */
export function distinct(values) {
  const written = [3, 4, 5, 6].map((digits) => values.map((value) => short(value, digits)));
  return written.find((words) => new Set(words).size === words.length) ?? written[3];
}

/**
 * Returns the smallest and the largest drawn value; null without values.
 * @param {Columns[]} curves
 * @param {boolean} logarithmic
 * @returns {[number, number] | null}
 */
export function valueRange(curves, logarithmic) {
  let [least, greatest] = [Infinity, -Infinity];
  for (const { low, high } of curves) {
    for (const value of low) if (value < least) least = value;
    for (const value of high) if (value > greatest) greatest = value;
  }
  if (least > greatest) return null;
  if (logarithmic) least = Math.max(least, greatest * 10 ** -DECADES);
  else least = Math.min(least, 0);
  if (greatest > least) return [least, greatest];
  return logarithmic ? [least / 2, greatest * 2] : [least - 1, greatest + 1];
}

/**
 * Returns a function that maps a value to a position from `top`, for the largest, to `bottom`.
 * @param {[number, number]} range
 * @param {boolean} logarithmic
 * @param {number} top
 * @param {number} bottom
 * @returns {(value: number) => number}
 */
export function scale([least, greatest], logarithmic, top, bottom) {
  const by = logarithmic ? Math.log10 : Number;
  const [low, high] = [by(least), by(greatest)];
  return (value) => bottom - ((bottom - top) * (by(value) - low)) / (high - low);
}

/**
 * Returns the values of the grid lines: a few round numbers.
 * @param {[number, number]} range
 * @param {boolean} logarithmic
 */
export function ticks([least, greatest], logarithmic) {
  if (!logarithmic) return even(least, greatest);
  const decades = Math.log10(greatest / least);
  const steps = decades > 2 ? [1] : decades > 1 ? [1, 3] : [1, 1.5, 2, 3, 5, 7];
  const found = [];
  for (let power = Math.floor(Math.log10(least)); 10 ** power <= greatest; power++) {
    found.push(...steps.map((step) => Number((step * 10 ** power).toPrecision(12))));
  }
  const within = found.filter((tick) => tick >= least && tick <= greatest);
  return within.length > 1 ? within : even(least, greatest); // a short range is nearly linear
}

/**
 * @param {number} least
 * @param {number} greatest
 */
function even(least, greatest) {
  const rough = (greatest - least) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5].find((s) => s * power >= rough) ?? 10);
  const found = [];
  for (let n = Math.ceil(least / step); n * step <= greatest; n++) {
    found.push(Number((n * step).toPrecision(12)));
  }
  return found;
}
