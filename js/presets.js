// @ts-check
/** Fills in the widgets of Training Options by a preset, whose values the server names with the input. */
import { app } from "../../scripts/app.js";
import { onChange } from "./number_widget.js";
import { also } from "./panel.js";

const PRESETS = "ziplora_presets";
const OWN = "custom";

/**
 * Returns the values of each preset; empty for a node without presets.
 * @param {any} node
 * @returns {Record<string, Record<string, any>>}
 */
function presetsOf({ constructor: { nodeData } }) {
  return nodeData?.input?.optional?.preset?.[1]?.[PRESETS] ?? {};
}

app.registerExtension({
  name: "ziplora.presets",
  nodeCreated(node) {
    const presets = presetsOf(node);
    const preset = node.widgets?.find(({ name }) => name === "preset");
    if (!preset || !Object.keys(presets).length) return;
    const names = new Set(Object.values(presets).flatMap(Object.keys));
    const others = node.widgets?.filter(({ name }) => names.has(name)) ?? [];
    preset.options.serialize = false; // not queued: a name for the same values would run them again
    let filling = false;
    const nameThem = () => {
      const values = presets[String(preset.value)] ?? {};
      const differs = others.some(({ name, value }) => name in values && value !== values[name]);
      if (!filling && differs) preset.value = OWN;
    };
    also(preset, "callback", (value) => { // only when a person chooses: a workflow has its own values
      const values = presets[String(value)] ?? {};
      filling = true;
      for (const widget of others) if (widget.name in values) widget.value = values[widget.name];
      filling = false;
    });
    for (const widget of others) onChange(widget, nameThem);
    also(node, "onConfigure", nameThem);
  },
});
