// @ts-check
/**
 * Shows the inputs that count: those that have an effect with what is chosen (`used_with` in
 * nodes/shared/shown.py), and advanced ones only when the user asks for them.
 *
 * Nodes 2.0 hides advanced inputs by itself, with a button to show them. The classic canvas has a menu entry for it,
 * *Show Advanced*, and leaves the hiding to us.
 */
import { app } from "../../scripts/app.js";
import { isLinked, onChange } from "./number_widget.js";
import { also, isOurs } from "./panel.js";

const USED_WITH = "ziplora_used_with";

/** @typedef {Record<string, string[]>} Uses the values of each choice with which an input is used */

/**
 * Returns the inputs of a node that depend on a choice.
 * @param {any} node
 * @returns {Map<string, Uses>} by name
 */
function dependent({ constructor: { nodeData } }) {
  const { required, optional } = nodeData.input ?? {};
  const every = Object.entries({ ...required, ...optional });
  return new Map(every.flatMap(([name, [, options]]) => (options?.[USED_WITH] ? [[name, options[USED_WITH]]] : [])));
}

/**
 * Shows what counts now.
 * @param {any} node
 * @param {Map<string, Uses>} uses
 * @param {number} [before] the least height before the change
 * @returns {number} how much lower the node may be
 */
function settle(node, uses, before = node.computeSize()[1]) {
  const chosen = new Map(node.widgets.map((/** @type {any} */ { name, value }) => [name, value]));
  for (const widget of node.widgets) {
    const { name, options } = widget;
    const choices = uses.get(name);
    if (!choices && !options?.advanced) continue;
    const linked = isLinked(node, name);
    const unused = !linked && Object.entries(choices ?? {}).some(
      ([choice, values]) => !isLinked(node, choice) && !values.includes(chosen.get(choice)),
    );
    widget.advanced = Boolean(options.advanced) && !linked; // for the classic canvas's menu
    widget.hidden = unused || (widget.advanced && !node.showAdvanced); // the classic canvas
    hideInNodes2(widget, unused);
  }
  return Math.round(before - node.computeSize()[1]);
}

/**
 * Gives a node a height, or as much more as it needs.
 * @param {any} node
 * @param {number} height
 */
function setHeight(node, height) {
  const needed = node.computeSize();
  node.setSize([Math.max(needed[0], node.size[0]), Math.max(needed[1], height)]);
  app.canvas?.setDirty(true, true);
}

/**
 * Hides a widget in Nodes 2.0, or shows it again.
 * @param {any} widget
 * @param {boolean} hidden
 */
function hideInNodes2(widget, hidden) {
  const { options } = widget._state ?? {}; // what the page watches, once the node is on a canvas
  if (options) options.hidden = hidden; // first: it may be the same object, and must see the change
  widget.options.hidden = hidden;
}

app.registerExtension({
  name: "ziplora.inputs",
  nodeCreated(node) {
    if (!isOurs(node) || !node.widgets) return;
    const uses = dependent(node);
    let settled = 0; // how often
    const change = (/** @type {number} */ before) => {
      settled += 1;
      setHeight(node, node.size[1] - settle(node, uses, before));
    };
    for (const choice of new Set([...uses.values()].flatMap(Object.keys))) {
      const widget = node.widgets.find(({ name }) => name === choice);
      if (widget) onChange(widget, () => change(node.computeSize()[1]));
    }
    for (const event of ["onConnectionsChange", "toggleAdvanced"]) {
      also(node, event, () => {
        const [before, times] = [node.computeSize()[1], settled];
        queueMicrotask(() => change(settled === times ? before : node.computeSize()[1])); // when it has happened
      });
    }
    let configured = false;
    also(node, "onConfigure", (saved) => {
      configured = true;
      settled += 1;
      settle(node, uses);
      setHeight(node, saved?.size?.[1] ?? node.size[1]);
    });
    queueMicrotask(() => { // the panels of other extensions are there then
      settle(node, uses);
      if (!configured) setHeight(node, 0);
    });
  },
});
