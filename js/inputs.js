// @ts-check
/**
 * Shows the inputs that count: those that have an effect with what is chosen (`used_with` in
 * nodes/shared/shown.py), and advanced ones only when the user asks for them.
 *
 * Nodes 2.0 hides advanced inputs by itself, with a button to show them. The classic canvas has a menu entry for it,
 * *Show Advanced*, and leaves the hiding to us; newer frontends hide them, and leave their rows empty.
 */
import { app } from "../../scripts/app.js";
import { isLinked, onChange } from "./number_widget.js";
import { also, isOurs } from "./panel.js";

const USED_WITH = "ziplora_used_with";
const VUE = "Comfy.VueNodes.Enabled";

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
    const advanced = Boolean(options.advanced) && !linked;
    widget.advanced = advanced; // for the classic canvas's menu
    hide(widget, unused || (advanced && !node.showAdvanced && !inNodes2()));
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
 * Hides a widget, or shows it again.
 * @param {any} widget
 * @param {boolean} hidden
 */
function hide(widget, hidden) {
  const { options } = widget._state ?? {}; // what Nodes 2.0 watches, once the node is on a canvas
  if (options) options.hidden = hidden; // first: it may be the same object, and must see the change
  widget.options.hidden = hidden;
  widget.hidden = hidden; // the classic canvas
}

/** Tells which of its two ways of drawing nodes the frontend uses. */
function inNodes2() {
  return Boolean(app.extensionManager.setting.get(VUE));
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
    const redrawn = () => queueMicrotask(() => settle(node, uses));
    app.ui.settings.addEventListener(`${VUE}.change`, redrawn);
    also(node, "onRemoved", () => app.ui.settings.removeEventListener(`${VUE}.change`, redrawn));
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
