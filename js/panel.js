// @ts-check
/**
 * What all panels of the pack share: a DOM widget that both renderers show and no file keeps, one
 * style sheet, and the way from the server's ids to nodes.
 */
import { app } from "../../scripts/app.js";
import { say } from "./words.js";

/** @typedef {any} Node A node of the canvas, with the frontend's own additions. */

const STYLE = `
.ziplora-panel {
  --ziplora-accent: #3b9eff;
  box-sizing: border-box; display: flex; flex-direction: column; gap: 4px; height: 100%;
  padding: 6px; overflow: hidden; border-radius: 4px; color: var(--fg-color);
  background: var(--comfy-input-bg); font: 11px/1.35 system-ui, sans-serif;
}
.ziplora-panel * { box-sizing: border-box; }
.ziplora-panel .row { display: flex; align-items: center; gap: 6px; min-width: 0; flex: none; }
.ziplora-panel .grow { flex: 1; min-width: 0; }
.ziplora-panel .head { flex: none; height: 60px; }
.ziplora-panel .head > * {
  display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 2;
  overflow: hidden; overflow-wrap: anywhere;
}
.ziplora-panel .numbers { font-variant-numeric: tabular-nums; }
.ziplora-panel button, .ziplora-panel select {
  min-height: 24px; padding: 0 8px; border: 1px solid var(--border-color); border-radius: 4px;
  color: var(--fg-color); background: var(--comfy-menu-bg, transparent); font: inherit;
  cursor: pointer;
}
.ziplora-panel button:hover:enabled { border-color: currentColor; }
.ziplora-panel button:disabled { opacity: 0.55; cursor: default; }
.ziplora-panel button[aria-pressed="true"] {
  border-color: var(--ziplora-accent);
  background: color-mix(in srgb, var(--ziplora-accent) 30%, transparent);
}
.ziplora-panel :focus-visible { outline: 2px solid var(--ziplora-accent); outline-offset: 1px; }
.ziplora-panel input[type="range"] { min-height: 24px; accent-color: var(--ziplora-accent); }
.ziplora-panel .plot { position: relative; flex: 2 1 80px; min-height: 60px; }
.ziplora-panel .plot canvas { position: absolute; inset: 0; width: 100%; height: 100%; }
.ziplora-panel .legend { gap: 4px 8px; overflow: hidden; height: 15px; white-space: nowrap; }
.ziplora-panel .legend i {
  display: inline-block; width: 10px; height: 3px; margin-right: 3px; vertical-align: middle;
}
.ziplora-panel .pictures { display: flex; flex-direction: column; flex: 3 1 110px; min-height: 0; }
.ziplora-panel .frame {
  display: flex; flex: 1; min-height: 0; align-items: center; justify-content: center;
}
.ziplora-panel .frame img { height: 100%; max-width: 100%; object-fit: contain; }
.ziplora-panel [hidden] { display: none !important; }
.ziplora-panel .tip {
  position: absolute; z-index: 1; padding: 3px 6px; border: 1px solid var(--border-color);
  border-radius: 4px; color: var(--fg-color); background: var(--comfy-menu-bg);
  white-space: pre; pointer-events: none;
}
.ziplora-panel .tip:empty { display: none; }
.ziplora-panel .tip canvas { display: block; position: static; }
.ziplora-panel .track {
  position: relative; flex: 1; height: 24px; margin: 0 12px; touch-action: none; cursor: pointer;
}
.ziplora-panel .track > * { position: absolute; }
.ziplora-panel .track .rail, .ziplora-panel .track .part {
  top: 10px; height: 4px; border-radius: 2px;
}
.ziplora-panel .track .rail { left: 0; right: 0; background: currentColor; opacity: 0.25; }
.ziplora-panel .track .part { background: var(--ziplora-accent); }
.ziplora-panel .track .trained {
  top: 5px; height: 14px; border: 1px solid currentColor; border-radius: 3px; opacity: 0.5;
}
.ziplora-panel .track .zero { left: 50%; top: 4px; width: 1px; height: 16px; background: currentColor; }
.ziplora-panel .track .thumb {
  top: 0; width: 24px; height: 24px; margin-left: -12px; border-radius: 50%; touch-action: none;
}
.ziplora-panel .track .thumb::after {
  content: ""; position: absolute; inset: 5px; border-radius: 50%;
  background: var(--ziplora-accent); border: 2px solid var(--fg-color);
}
.ziplora-panel .track[aria-disabled="true"] { opacity: 0.45; cursor: default; }
.ziplora-panel .ends { display: flex; justify-content: space-between; padding: 0 12px; }
`;

/** Of our widgets on a node, after all others. */
const ORDER = ["slider_control", "training", "merge_map", "report"];

let styled = false;

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
  if (!styled) {
    document.head.append(make("style", { "data-ziplora": "" }, STYLE));
    followPalette();
  }
  styled = true;
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
  const call = () => element.setAttribute("aria-label", say(what, { title: node.title }));
  call();
  also(node, "onConfigure", call); // a workflow may have another title
  element.style.minHeight = `${height}px`;
  element.dataset.captureWheel = "true";
  element.dataset.ziploraWidget = name; // for js/remount.js
  // No type of the frontend's own: it would show its own widget instead of our element.
  const widget = node.addDOMWidget(name, `ZIPLORA_${name.toUpperCase()}`, element, {
    serialize: false,
    hideInPanel: true, // the side panel would take the element away from the node
    hideOnZoom: false,
    getMinHeight: () => height,
    ...others,
  });
  widget.serialize = false;
  // The frontend loads extensions in no certain order; ours are to stand in this one.
  node.widgets.sort((/** @type {any} */ a, /** @type {any} */ b) => rank(a) - rank(b));
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
  const known = graph === rootGraph || rootGraph.subgraphs.get(graph?.id) === graph;
  return known && graph?.getNodeById(id)?.id === id;
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

/** Tells every plot on the page that the person has chosen another palette. */
function followPalette() {
  const observer = new MutationObserver(() => {
    for (const plot of document.querySelectorAll(".ziplora-panel .plot")) {
      plot.dispatchEvent(new Event("palette"));
    }
  });
  for (const element of [document.documentElement, document.body]) {
    observer.observe(element, { attributes: true, attributeFilter: ["class", "style"] });
  }
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
 * Calls `act` before `method` of a node's own, which stays in place.
 * @param {Node} node
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
