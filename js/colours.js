// @ts-check
/** The colours of the pack's maps and charts. */

/** Blue to orange, with the background in the middle; safe for colour-blind readers. */
export const SIGNS = {
  dark: ["#7cc4ff", "#3f86c4", "#24486b", "#2a2a2e", "#6e4319", "#c2711f", "#ffb066"],
  light: ["#0a4a86", "#4f8fc9", "#a9cbe8", "#f4f4f4", "#f3c99a", "#d18636", "#8a4a00"],
};

/** Curve colours: content, style, penalty, others. Safe for colour-blind readers, with a contrast of at
 * least 3 : 1 on their background. The same as in ziplora_core/plots/style.py. */
export const CURVES = {
  dark: ["#4cc2ff", "#ff9f43", "#9b8cff", "#62d48a", "#f08bb4"],
  light: ["#0a66b7", "#b35300", "#5b46c8", "#1d7f45", "#b0306f"],
};

/** The loss terms with their own colour, and the terms that share one of these colours. */
const NAMED = ["content", "style", "penalty"];
const SAME = new Map([["instance", "content"], ["slider", "content"], ["high", "content"],
  ["prior", "style"], ["low", "style"]]);

/**
 * Returns the colour of a curve.
 * @param {string} term of the loss
 * @param {string[]} terms all drawn terms
 * @param {boolean} light whether the background is light
 */
export function colourOf(term, terms, light) {
  const known = CURVES[light ? "light" : "dark"];
  const place = (/** @type {string} */ name) => NAMED.indexOf(SAME.get(name) ?? name);
  if (place(term) >= 0) return known[place(term)];
  const others = terms.filter((name) => place(name) < 0);
  return known[3 + (Math.max(0, others.indexOf(term)) % 2)];
}

/**
 * Returns the colour at a relative position on a colour scale.
 * @param {string[]} colours `#rrggbb`
 * @param {number} share 0…1
 */
export function between(colours, share) {
  const place = Math.min(1, Math.max(0, share)) * (colours.length - 1);
  const first = Math.min(colours.length - 2, Math.floor(place));
  const parts = [first, first + 1].map((n) => colours[n].match(/[0-9a-f]{2}/g) ?? []);
  const mixed = [0, 1, 2].map((channel) => {
    const [from, to] = parts.map((part) => parseInt(part[channel], 16));
    return Math.round(from + (to - from) * (place - first));
  });
  return `rgb(${mixed.join(", ")})`;
}
