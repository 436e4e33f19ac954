// @ts-check
/**
 * Names the base model of the files in the pickers' lists that belong to another one than SDXL. The
 * server looks for them when a person opens a list.
 *
 * Nodes 2.0 asks each list for its labels (`getOptionLabel`). The classic canvas would then leave out
 * the box that filters a long list, so there the entries of the opened menu are written anew.
 */
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { also, isOurs } from "./panel.js";

const WITH_BASES = "ziplora_with_bases";
const VUE = "Comfy.VueNodes.Enabled";
/** @type {Map<string, string>} the base of each such file, by its name */
const bases = new Map();
/** @type {Set<() => void>} what shows the marks of a list that is open */
const shown = new Set();
let asking = false;

/** @param {string | null} name of a file */
function label(name) {
  const base = bases.get(name ?? "");
  return base ? `${name} · ${base}` : name ?? "";
}

/** Asks the server for a second's part of the list after the other, until it has seen all. */
async function ask() {
  if (asking) return;
  asking = true;
  try {
    for (let start = 0; start !== null; ) {
      const answer = await api.fetchApi(`/ziplora/loras?start=${start}`);
      const { others, next } = answer.ok ? await answer.json() : { others: {}, next: null };
      for (const [name, base] of Object.entries(others)) bases.set(name, base);
      for (const show of shown) show();
      start = next;
    }
  } catch {
    // The server is away: the list stays as it is.
  } finally {
    asking = false;
    shown.clear();
  }
}

/** @param {() => void} show marks a list that has just been opened */
function opened(show) {
  show();
  shown.add(show);
  ask();
}

/** Marks the entries of the classic canvas's menu that has just been opened. */
function markMenu() {
  const menu = [...document.querySelectorAll(".litecontextmenu")].at(-1);
  if (!menu) return; // an arrow was clicked
  opened(() => {
    for (const entry of /** @type {NodeListOf<HTMLElement>} */ (menu.querySelectorAll(".litemenu-entry"))) {
      const { value = "" } = entry.dataset;
      if (bases.has(value)) entry.textContent = label(value);
    }
  });
}

/**
 * Returns the lists of LoRA files on a node.
 * @param {any} node
 * @returns {any[]} their widgets
 */
function listsOf(node) {
  if (!node?.widgets || !isOurs(node)) return [];
  const { required, optional } = node.constructor.nodeData.input ?? {};
  const inputs = { ...required, ...optional };
  return node.widgets.filter((/** @type {any} */ { name }) => inputs[name]?.[1]?.[WITH_BASES]);
}

/** @param {Event} event on an element of the page, maybe a list of Nodes 2.0 */
function openedOnPage({ target }) {
  const list = /** @type {Element} */ (target)?.closest?.("[data-node-id] [role='combobox']");
  const holder = /** @type {HTMLElement | null} */ (list?.closest("[data-node-id]"));
  if (!holder) return;
  for (const widget of listsOf(app.canvas.graph?.getNodeById(holder.dataset.nodeId ?? ""))) {
    opened(() => {
      const { options } = widget._state ?? widget; // what the page watches
      options.values = [...options.values];
    });
  }
}

app.registerExtension({
  name: "ziplora.other_bases",
  setup() {
    for (const event of ["pointerdown", "focusin"]) document.addEventListener(event, openedOnPage, true);
  },
  nodeCreated(node) {
    for (const widget of listsOf(node)) {
      Object.defineProperty(widget.options, "getOptionLabel", {
        configurable: true,
        enumerable: true,
        get: () => (app.extensionManager.setting.get(VUE) ? label : undefined),
      });
      also(widget, "onClick", () => queueMicrotask(markMenu));
    }
  },
});
