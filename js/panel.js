// @ts-check
/**
 * What all panels of the pack share: a DOM widget that both renderers show and no file keeps, and
 * the way from the server's ids to nodes.
 */
import { app } from "../../scripts/app.js";
import { addStyle } from "./style.js";
import { say } from "./words.js";

/** @typedef {NonNullable<ReturnType<typeof app.rootGraph.getNodeById>>} Node Of the canvas. */

/** Of our widgets on a node, after all others. */
const ORDER = ["slider_control", "training", "merge_map", "report"];

/** Around an element in the classic renderer, in pixels; the frontend's usual one. */
const MARGIN = 10;

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
 * Makes an empty panel; the pack's styles come with the first one, and only reach into panels.
 * @returns {HTMLElement}
 */
export function makePanel() {
  addStyle();
  const panel = make("div", { class: "ziplora-panel", role: "group" });
  panel.addEventListener("wheel", zoomThrough, { passive: false });
  return panel;
}

/**
 * Shows an element on a node, below its other widgets. No workflow file and no prompt has it.
 * @param {Node} node
 * @param {string} name of the widget
 * @param {string} what it is, as a screen reader says it; `{title}` is the node's
 * @param {HTMLElement} element
 * @param {number} height the least it needs, in pixels
 * @param {object} [others] further options of the widget
 * @returns {any} the widget
 */
export function showOnNode(node, name, what, element, height, others = {}) {
  const nameIt = () => element.setAttribute("aria-label", say(what, { title: node.title }));
  nameIt();
  also(node, "onConfigure", nameIt); // a workflow may have another title
  element.style.minHeight = `${height}px`;
  element.dataset.captureWheel = "true";
  element.dataset.ziploraWidget = name; // for js/remount.js
  // No type of the frontend's own: it would show its own widget instead of our element.
  // What the published types leave out: it is the frontend's addition to the node.
  const widget = /** @type {any} */ (node).addDOMWidget(name, `ZIPLORA_${name.toUpperCase()}`, element, {
    serialize: false,
    hideInPanel: true, // the side panel would take the element away from the node
    hideOnZoom: false,
    margin: MARGIN,
    getMinHeight: () => height + 2 * MARGIN, // the classic renderer takes the margins out of it
    ...others,
  });
  widget.serialize = false;
  // The frontend loads extensions in no certain order; ours are to stand in this one.
  node.widgets?.sort((a, b) => rank(a) - rank(b));
  const needed = node.computeSize();
  node.setSize([Math.max(needed[0], node.size[0]), Math.max(needed[1], node.size[1])]);
  return widget;
}

/** @param {{ name: string }} widget */
function rank({ name }) {
  return ORDER.indexOf(name);
}

/**
 * Lets the wheel zoom the canvas, also over an element that lies on it.
 * @param {WheelEvent} event
 */
export function zoomThrough(event) {
  if (event.defaultPrevented) return;
  event.preventDefault();
  event.stopPropagation();
  app.canvas.processMouseWheel(event);
}

/** @param {Node} node the id of what it is; of a note, which is the frontend's own, nothing */
export function classOf({ comfyClass = "" }) {
  return comfyClass;
}

/**
 * Finds the node of an id of the server: `5`, or `12:5` for node 5 in the subgraph of node 12.
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
 * Whether a node is still in the workflow, or one of its subgraphs.
 * @param {Node} node
 */
export function isThere({ graph, id }) {
  const { rootGraph } = app;
  if (!graph) return false;
  const known = graph === rootGraph || rootGraph.subgraphs.get(graph.id) === graph;
  return known && graph.getNodeById(id)?.id === id;
}

/**
 * Makes the part of an extension that shows what nodes have put out, again whenever nodes are made
 * anew: when another tab or a run of the history is opened, or a change is undone.
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
 * Finds the node of an output as the frontend keeps it: `12`, or `<id of the subgraph>:12`.
 * @param {string} locator
 * @returns {Node | undefined}
 */
function nodeOfOutput(locator) {
  const [id, subgraph] = locator.split(":").reverse();
  const graph = subgraph ? app.rootGraph.subgraphs.get(subgraph) : app.rootGraph;
  return graph?.getNodeById(id) ?? undefined;
}

/**
 * Whether what an element stands on is light.
 * @param {Element} element
 */
export function isLight(element) {
  const [red, green, blue] = getComputedStyle(element).backgroundColor.match(/[\d.]+/g) ?? [0, 0, 0];
  return 0.2126 * Number(red) + 0.7152 * Number(green) + 0.0722 * Number(blue) > 128;
}

/**
 * Calls `act` before `method` of a node's own, or a widget's, which stays in place.
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
