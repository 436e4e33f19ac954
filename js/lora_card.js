// @ts-check
/**
 * Shows what a LoRA file is as soon as it is picked: its preview picture, base model, rank, size and
 * trigger words, with a button that puts these into the prompt.
 */
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { onChange } from "./number_widget.js";
import { opensLarge } from "./large_picture.js";
import { also, classOf, fill, make, makePanel, showOnNode } from "./panel.js";
import { say } from "./translations.js";
import { putIntoPrompts } from "./trigger_words.js";

/** @type {Map<string, Record<string, number>>} each node's pickers, with the slot that leads to the file's prompt */
const PICKERS = new Map();
PICKERS.set("LoadLoRAPair", { content_lora: 1, style_lora: 2 });
PICKERS.set("ConceptSlider", { slider: 0 });
PICKERS.set("LoadMergedLoRA", { merged_lora: 0 });
const NONE = "None";
/** The height of a file's row, the space between rows, and that around them, in pixels. */
const [ROW, GAP, AROUND] = [62, 6, 12];
const [KB, MB] = [1e3, 1e6];

/**
 * @typedef {object} Said What the server says of a file.
 * @property {string} problem
 * @property {number} size in bytes
 * @property {string | null} preview
 * @property {string} [base]
 * @property {boolean} [is_lora]
 * @property {number[]} [ranks]
 * @property {string[]} [words]
 */

class FileRow {
  /**
   * @param {import("./panel.js").Node} node
   * @param {string} input the picker's name
   * @param {number} output the slot that leads to the prompt
   */
  constructor(node, input, output) {
    this.node = node;
    this.input = input;
    this.file = NONE;
    /** @type {string[]} */
    this.words = [];
    this.picture = make("img", { alt: "", draggable: "false" });
    opensLarge(this.picture, () => {
      const { src, alt } = this.picture;
      return { all: [{ src, alt, name: this.file, captions: [] }], at: 0, other: 0 };
    });
    this.facts = make("div", { class: "facts numbers" });
    this.trigger = make("div", { class: "words" });
    this.put = make("button", { type: "button" }, say("Put into the prompt"));
    this.done = make("span", { class: "grow done", role: "status" });
    this.put.addEventListener("click", async () => {
      this.done.textContent = this.done.title = await putIntoPrompts(node, output, this.words);
    });
    const row = make("div", { class: "row" }, this.put, this.done);
    this.element = make("div", { class: "file" }, this.picture, make("div", { class: "about" }, this.facts, this.trigger, row));
    this.show({ problem: "", size: 0, preview: null });
  }

  /** The name of the picked file. */
  get picked() {
    return String(this.node.widgets?.find(({ name }) => name === this.input)?.value ?? NONE);
  }

  /** @param {boolean} [again] whether to read a file that was read before: it may have been replaced */
  async read(again = false) {
    const file = this.picked;
    this.element.hidden = file === NONE || !file;
    if (file === this.file && !again) return;
    const isOther = file !== this.file;
    this.file = file;
    if (isOther) this.show({ problem: "", size: 0, preview: null });
    if (this.element.hidden) return;
    const said = await ask(file);
    if (file === this.file) this.show(said);
  }

  /** @param {Said} said */
  show({ problem, size, preview, base, is_lora, ranks = [], words = [] }) {
    const [low, high] = ranks;
    const what = is_lora === false ? say("not a LoRA: {base}", { base: say(base ?? "") })
      : say(base || (is_lora ? "base unknown" : ""));
    const rank = low === undefined ? "" : say("rank {rank}", { rank: low === high ? low : `${low} – ${high}` });
    const role = this.input.match(/^(content|style)_/)?.[1];
    const facts = [role && say(role), what, rank, size && sizeOf(size)];
    this.facts.textContent = problem || facts.filter(Boolean).join(" · ");
    this.facts.title = this.facts.textContent;
    this.facts.toggleAttribute("data-wrong", Boolean(problem) || is_lora === false);
    this.words = words;
    this.trigger.textContent = words.length ? say("trigger words: {words}", { words: words.join(", ") })
      : is_lora ? say("no trigger words in the file") : "";
    this.trigger.title = words.join(", ");
    this.trigger.classList.toggle("faint", !words.length);
    this.put.hidden = !words.length;
    this.done.textContent = "";
    this.picture.hidden = !preview;
    if (!preview) return;
    this.picture.alt = say("Preview of {file}", { file: this.file });
    this.picture.src = api.apiURL(`/ziplora/lora/preview?${new URLSearchParams({ name: this.file, version: preview })}`);
  }
}

/** @param {number} bytes */
function sizeOf(bytes) {
  return bytes < MB ? `${Math.ceil(bytes / KB)} KB` : `${(bytes / MB).toFixed(1)} MB`;
}

/**
 * @param {string} file
 * @returns {Promise<Said>}
 */
async function ask(file) {
  try {
    const answer = await api.fetchApi(`/ziplora/lora?${new URLSearchParams({ name: file })}`);
    return await answer.json();
  } catch {
    return { problem: say("The server does not answer."), size: 0, preview: null };
  }
}

/** @type {Set<() => void>} reads the files of each card again */
const cards = new Set();

/**
 * @param {import("./panel.js").Node} node
 * @param {Record<string, number>} pickers
 */
function addCard(node, pickers) {
  const rows = Object.entries(pickers).map(([input, output]) => new FileRow(node, input, output));
  const panel = makePanel(say("What a file holds appears here when you pick it."));
  panel.classList.add("card");
  panel.append(...rows.map(({ element }) => element));
  const height = AROUND + rows.length * (ROW + GAP) - GAP;
  showOnNode(node, "lora_card", "Files of {title}", panel, height);
  const settle = (again = false) => {
    for (const row of rows) row.read(again);
    if (rows.some(({ element }) => !element.hidden)) fill(panel);
    else if (!("empty" in panel.dataset)) panel.dataset.empty = "roomy";
  };
  for (const { input } of rows) {
    const widget = node.widgets?.find(({ name }) => name === input);
    if (widget) onChange(widget, settle);
  }
  const again = () => settle(true);
  cards.add(again);
  also(node, "onRemoved", () => cards.delete(again));
  also(node, "onExecuted", again);
  queueMicrotask(settle); // a workflow has set its values then
}

app.registerExtension({
  name: "ziplora.lora_card",
  nodeCreated(node) {
    const pickers = PICKERS.get(classOf(node));
    if (pickers) addCard(node, pickers);
  },
  refreshComboInNodes() {
    for (const again of cards) again();
  },
});
