// @ts-check
/**
 * The base of all panels: a DOM widget that both renderers show and that is not saved, and the
 * lookup of nodes by the server's ids.
 */
import { app } from "../../scripts/app.js";
import { addStyle } from "./style.js";
import { say } from "./translations.js";

/** @typedef {NonNullable<ReturnType<typeof app.rootGraph.getNodeById>>} Node A node on the canvas. */

/** The order of our widgets on a node, after all others. */
const ORDER = ["lora_card", "folder_card", "slider_control", "training", "merge_map", "merge_sheet", "report"];

/** The margin around an element in the classic renderer, in pixels; the frontend's default. */
const MARGIN = 10;

/** The minimum height of a panel or report that has nothing to show yet, in pixels. */
const EMPTY = 30;

/** @type {WeakMap<Element, { height: number, makeRoom: () => void }>} what an element on a node needs once filled */
const rooms = new WeakMap();

/**
 * Makes an element.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, string>} [attributes]
 * @param {...(Element | string)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/**
 * Makes a panel. The first panel adds the style sheet, which applies inside panels only.
 * @param {string} [hint] what will appear on it; only this is shown until it is filled
 * @returns {HTMLElement}
 */
export function makePanel(hint) {
  addStyle();
  const panel = make("div", { class: "ziplora-panel", role: "group" });
  if (hint) {
    panel.dataset.empty = "";
    panel.append(make("div", { class: "hint" }, hint));
  }
  panel.addEventListener("wheel", zoomThrough, { passive: false });
  return panel;
}

/**
 * Shows an element on a node, below its other widgets. It is not part of the workflow file or the
 * prompt. An empty one takes little room until `fill` is called.
 * @param {Node} node
 * @param {string} name of the widget
 * @param {string} what the name for screen readers; `{title}` stands for the node's title
 * @param {HTMLElement} element
 * @param {number} height the minimum height once it is filled, in pixels
 * @param {object} [others] further options of the widget
 * @returns {any} the widget
 */
export function showOnNode(node, name, what, element, height, others = {}) {
  const nameIt = () => element.setAttribute("aria-label", say(what, { title: node.title }));
  nameIt();
  also(node, "onConfigure", nameIt); // a workflow may set another title
  const least = () => (element.dataset.empty === "" ? EMPTY : height);
  element.dataset.captureWheel = "true";
  element.dataset.ziploraWidget = name; // for js/remount.js
  // The type must not be one of the frontend's own, which would show its widget instead of our element.
  // `addDOMWidget` is the frontend's addition to the node; the published types do not list it.
  const widget = /** @type {any} */ (node).addDOMWidget(name, `ZIPLORA_${name.toUpperCase()}`, element, {
    serialize: false,
    hideInPanel: true, // the side panel would move the element away from the node
    hideOnZoom: false,
    margin: MARGIN,
    getMinHeight: () => least() + 2 * MARGIN, // the classic renderer subtracts the margins
    ...others,
  });
  widget.serialize = false;
  // The frontend loads extensions in no fixed order; our widgets must be in this one.
  node.widgets?.sort((a, b) => rank(a) - rank(b));
  const makeRoom = () => {
    element.style.minHeight = `${least()}px`;
    const needed = node.computeSize();
    node.setSize([Math.max(needed[0], node.size[0]), Math.max(needed[1], node.size[1])]);
  };
  makeRoom();
  rooms.set(element, { height, makeRoom });
  const keepRoom = () => {
    if (element.dataset.empty !== "" || node.size[1] < heightWhenFilled(node)) return;
    element.dataset.empty = "roomy"; // all of it is shown, with the hint
    makeRoom();
  };
  also(node, "onConfigure", () => queueMicrotask(keepRoom)); // a workflow may have room, once inputs are hidden
  return widget;
}

/**
 * Makes room for what an element has to show, where it was empty.
 * @param {HTMLElement} element
 */
export function fill(element) {
  if (!("empty" in element.dataset)) return;
  delete element.dataset.empty;
  rooms.get(element)?.makeRoom();
}

/**
 * Returns the least height of a node all of whose panels are filled.
 * @param {any} node
 */
function heightWhenFilled(node) {
  const waiting = node.widgets.filter((/** @type {any} */ w) => w.element?.dataset?.empty === "");
  const missing = waiting.map((/** @type {any} */ w) => (rooms.get(w.element)?.height ?? EMPTY) - EMPTY);
  return missing.reduce((/** @type {number} */ sum, /** @type {number} */ more) => sum + more, node.computeSize()[1]);
}

/** @param {{ name: string }} widget */
function rank({ name }) {
  return ORDER.indexOf(name);
}

/**
 * Lets the wheel zoom the canvas, also over an element on it.
 * @param {WheelEvent} event
 */
export function zoomThrough(event) {
  if (event.defaultPrevented) return;
  event.preventDefault();
  event.stopPropagation();
  app.canvas.processMouseWheel(event);
}

/** @param {Node} node whose class id is returned; empty for a note, which is the frontend's own */
export function classOf({ comfyClass = "" }) {
  return comfyClass;
}

/**
 * Finds a node by the server's id: `5`, or `12:5` for node 5 in the subgraph of node 12.
 * @param {string} id
 * @returns {Node | undefined}
 */
export function nodeOfRun(id) {
  /** @type {any} */
  let graph = app.rootGraph;
  let node;
  for (const part of id.split(":")) {
    node = graph?.getNodeById(part);
    graph = node?.subgraph;
  }
  return node ?? undefined;
}

/**
 * Returns the frontend's key of a node's output: `12`, or `<id of the subgraph>:12`.
 * @param {Node} node
 */
export function placeOf({ graph, id }) {
  return graph === app.rootGraph ? String(id) : `${graph?.id}:${id}`;
}

/**
 * Checks whether a node is one of this pack's.
 * @param {any} node
 */
export function isOurs({ constructor: { nodeData } }) {
  return Boolean(nodeData?.category?.startsWith("ZipLoRA/"));
}

/**
 * Checks whether a node shows results on an element of ours.
 * @param {any} node
 */
export function hasPanel({ widgets }) {
  return Boolean(widgets?.some((/** @type {any} */ w) => w.element?.dataset?.ziploraWidget));
}

/**
 * Checks whether a node is still in the workflow or one of its subgraphs.
 * @param {Node} node
 */
export function isThere({ graph, id }) {
  const { rootGraph } = app;
  if (!graph) return false;
  const known = graph === rootGraph || rootGraph.subgraphs.get(graph.id) === graph;
  return known && graph.getNodeById(id)?.id === id;
}

/**
 * Makes the part of an extension that shows the outputs of nodes. It shows them again whenever nodes
 * are recreated: when another tab or a run of the history is opened, or a change is undone.
 * @param {(node: Node, output: any) => void} show
 */
export function showsOutputs(show) {
  const showAll = () => {
    for (const [locator, output] of Object.entries(app.nodeOutputs)) {
      const node = nodeOfOutput(locator);
      if (node) show(node, output);
    }
  };
  return { onNodeOutputsUpdated: showAll, afterConfigureGraph: showAll };
}

/**
 * Finds a node by the frontend's key of its output: `12`, or `<id of the subgraph>:12`.
 * @param {string} locator
 * @returns {Node | undefined}
 */
function nodeOfOutput(locator) {
  const [id, subgraph] = locator.split(":").reverse();
  const graph = subgraph ? app.rootGraph.subgraphs.get(subgraph) : app.rootGraph;
  return graph?.getNodeById(id) ?? undefined;
}

/**
 * Checks whether the background of an element is light.
 * @param {Element} element
 */
export function isLight(element) {
  const [red, green, blue] = getComputedStyle(element).backgroundColor.match(/[\d.]+/g) ?? [0, 0, 0];
  return 0.2126 * Number(red) + 0.7152 * Number(green) + 0.0722 * Number(blue) > 128;
}

/**
 * Wraps a method of a node or widget so that `act` is called before it.
 * @param {any} node
 * @param {string} method
 * @param {(...values: any[]) => void} act
 */
export function also(node, method, act) {
  const own = node[method];
  node[method] = function (/** @type {any[]} */ ...values) {
    act(...values);
    return own?.apply(this, values);
  };
}
