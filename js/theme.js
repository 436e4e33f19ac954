// @ts-check
/** Draws the figures of a node with *theme* at `page` in the colors of the page. */
import { app } from "../../scripts/app.js";
import { isLight, isOurs, make } from "./panel.js";

const PAGE = "page";

/** The theme of a figure that is to look like the page. */
function themeOfPage() {
  const sample = make("div", { style: "background: var(--bg-color)" });
  document.body.append(sample);
  const theme = isLight(sample) ? "light" : "dark";
  sample.remove();
  return theme;
}

app.registerExtension({
  name: "ziplora.theme",
  nodeCreated(node) {
    const widget = /** @type {any} */ (isOurs(node) && node.widgets?.find(({ name }) => name === "theme"));
    if (!widget) return;
    // Only in the prompt, which is what the image depends on: the workflow keeps `page`.
    widget.serializeValue = () => (widget.value === PAGE ? themeOfPage() : widget.value);
  },
});
