// @ts-check
/** The list of past trainings, with boxes to choose two that are to be compared. */
import { api } from "../../scripts/api.js";
import { make } from "./panel.js";
import { pathOf } from "./past_data.js";
import { how, titleOf, when } from "./past_words.js";
import { say } from "./translations.js";

/** @typedef {import("./past_data.js").Entry} Entry */

/**
 * Makes the list.
 * @param {Entry[]} entries
 * @param {string[]} chosen names of those that are chosen, which is changed
 * @param {{ open: (name: string) => void, compare: () => void }} acts
 */
export function listed(entries, chosen, { open, compare }) {
  if (!entries.length) return [make("p", { class: "faint nothing" }, say("Nothing has been trained yet, or nothing is kept."))];
  const known = new Set(entries.filter(({ recorded }) => recorded).map(({ name }) => name));
  chosen.splice(0, chosen.length, ...chosen.filter((name) => known.has(name)));
  const button = make("button", { type: "button" }, say("Compare"));
  button.title = say("Choose two trainings to compare them");
  button.addEventListener("click", compare);
  /** @type {Map<string, HTMLInputElement>} */
  const boxes = new Map();
  const mark = () => {
    for (const [name, box] of boxes) box.checked = chosen.includes(name);
    button.disabled = chosen.length < 2;
  };
  const rows = entries.map((entry) => {
    const { name } = entry;
    const box = make("input", { type: "checkbox", "aria-label": say("Compare {title}", { title: titleOf(entry) }) });
    box.disabled = !entry.recorded;
    box.addEventListener("change", () => {
      chosen.splice(0, chosen.length, ...chosen.filter((other) => other !== name));
      if (box.checked) chosen.splice(0, chosen.length, ...chosen.slice(-1), name);
      mark();
    });
    boxes.set(name, box);
    return make("div", { class: "entry", role: "listitem" }, box, opener(entry, open));
  });
  mark();
  const count = make("span", { class: "faint grow" }, say("Choose two to compare them."));
  return [make("div", { class: "row" }, count, button), make("div", { class: "entries", role: "list" }, ...rows)];
}

/**
 * @param {Entry} entry
 * @param {(name: string) => void} open
 */
function opener(entry, open) {
  const words = [
    make("span", { class: "title", title: titleOf(entry) }, titleOf(entry)),
    make("span", { class: "faint" }, how(entry)),
    make("span", { class: "faint numbers" }, when(entry, false)),
  ];
  const button = make("button", { type: "button" }, make("span", { class: "grow" }, ...words));
  const step = entry.samples.at(-1);
  if (step !== undefined) {
    const src = api.apiURL(pathOf(entry.name, `samples/${step}`));
    button.prepend(make("img", { src, alt: "", loading: "lazy" }));
  }
  button.addEventListener("click", () => open(entry.name));
  return button;
}
