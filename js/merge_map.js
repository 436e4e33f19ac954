// @ts-check
/** Shows the coefficients of ZipLoRA Optimize as a map of the UNet, with a colour legend. */
import { app } from "../../scripts/app.js";
import { MapPlot, QUANTITIES } from "./map_plot.js";
import { also, classOf, fill, make, makePanel, showOnNode, showsOutputs } from "./panel.js";
import { short } from "./chart_axes.js";
import { say } from "./translations.js";

const NODES = new Set(["ZipLoRAOptimize"]);
const OUTPUT = "ziplora_merge_map";
const HEIGHT = 168;

class MapPanel {
  /** @param {import("./panel.js").Node} node */
  constructor(node) {
    this.plot = new MapPlot(() => this.explain());
    this.choice = make("select", { "aria-label": say("What the colours show") });
    this.choice.append(...QUANTITIES.map(({ label }) => make("option", {}, say(label))));
    this.choice.disabled = true;
    this.choice.addEventListener("change", () => {
      this.plot.quantity = QUANTITIES[this.choice.selectedIndex];
      this.plot.redraw();
    });
    this.bar = make("span", { "aria-hidden": "true" });
    this.bar.style.cssText = "width: 72px; height: 10px; border-radius: 2px; flex: none";
    this.low = make("span", { class: "numbers" });
    this.high = make("span", { class: "numbers" });
    this.means = make("span", { class: "faint" });
    const gap = make("span", { class: "grow" });
    const legend = make("div", { class: "row" }, this.means, gap, this.low, this.bar, this.high);
    this.element = makePanel(say("The map appears here after a run."));
    this.element.append(make("div", { class: "row" }, this.choice), legend, this.plot.element);
    showOnNode(node, "merge_map", "Map of {title}", this.element, HEIGHT);
  }

  /** @param {unknown} output of a node; its map is shown, if it has one */
  show(output) {
    const [map] = /** @type {any} */ (output)?.[OUTPUT] ?? [];
    if (!isMap(map)) return;
    this.choice.disabled = false;
    fill(this.element);
    this.plot.show(map);
  }

  /** Updates the colour legend. */
  explain() {
    this.bar.style.background = `linear-gradient(to right, ${this.plot.colours.join(", ")})`;
    [this.low.textContent, this.high.textContent] = this.plot.range.map((value) => short(value));
    this.means.textContent = say(this.plot.quantity.means);
  }
}

/**
 * Checks whether a value is a complete map.
 * @param {any} map
 * @returns {map is import("./map_plot.js").MergeMap}
 */
function isMap(map) {
  const { blocks, groups, layers, cells, histograms, range } = map ?? {};
  return (
    [blocks, groups, layers, cells, histograms, range].every(Array.isArray) &&
    cells.length > 0 && cells.length === histograms.length && groups.length === blocks.length &&
    cells.every((/** @type {any} */ cell) => cell?.length === 6 && cell.every(Number.isFinite)) &&
    histograms.every((/** @type {any} */ both) => both?.length === 2 && both.every(Array.isArray))
  );
}

/** @type {WeakMap<import("./panel.js").Node, MapPanel>} */
const panels = new WeakMap();

app.registerExtension({
  name: "ziplora.merge_map",
  nodeCreated(node) {
    if (!NODES.has(classOf(node))) return;
    const panel = new MapPanel(node);
    panels.set(node, panel);
    also(node, "onExecuted", (output) => panel.show(output));
  },
  ...showsOutputs((node, output) => panels.get(node)?.show(output)),
});
