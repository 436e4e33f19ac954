// @ts-check
/** What panels do with the number widgets of their node, which are saved and queued. */

/**
 * Calls a function at every change of a widget's value, whatever the source.
 * @param {any} widget
 * @param {() => void} act
 */
export function onChange(widget, act) {
  const { get, set } = accessors(widget);
  Object.defineProperty(widget, "value", {
    configurable: true,
    enumerable: true,
    get,
    set: (value) => {
      set(value);
      act();
    },
  });
  const own = widget.callback;
  widget.callback = function (/** @type {any[]} */ ...values) {
    act();
    return own?.apply(this, values);
  };
}

/**
 * Returns whether a number comes from another node.
 * @param {import("./panel.js").Node} node
 * @param {string} name of the widget
 */
export function isLinked(node, name) {
  return (node.inputs ?? []).some((i) => i.widget?.name === name && i.link != null);
}

/**
 * Returns a getter and a setter for a widget's value, wherever the frontend stores it.
 * @param {any} widget
 * @returns {{ get: () => any, set: (value: any) => void }}
 */
function accessors(widget) {
  for (let holder = widget; holder; holder = Object.getPrototypeOf(holder)) {
    const found = Object.getOwnPropertyDescriptor(holder, "value");
    if (found?.get && found.set) {
      return { get: found.get.bind(widget), set: found.set.bind(widget) };
    }
    if (found) break;
  }
  let value = widget.value;
  return {
    get: () => value,
    set: (next) => {
      value = next;
    },
  };
}
