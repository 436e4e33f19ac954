// @ts-check
/** The style sheet of all panels and reports. Its rules apply inside these only. */
import { app } from "../../scripts/app.js";

/** Milliseconds between two looks at the zoom. */
const LOOK = 400;

const STYLE = `
.ziplora-panel[data-ziplora-old], .ziplora-report[data-ziplora-old] { opacity: 0.6; }
.ziplora-report[data-failed] { outline: 1px solid #e0524f; outline-offset: -1px; }
.ziplora-panel {
  --ziplora-accent: #3b9eff;
  box-sizing: border-box; display: flex; flex-direction: column; gap: 4px; height: 100%;
  padding: 6px; overflow: hidden; border-radius: 4px; color: var(--fg-color);
  background: var(--comfy-input-bg); font: 11px/1.35 system-ui, sans-serif;
}
.ziplora-panel * { box-sizing: border-box; }
.ziplora-panel[data-empty=""] > :not(.hint), .ziplora-panel:not([data-empty]) > .hint { display: none; }
.ziplora-panel .hint, .ziplora-panel .faint { opacity: 0.7; }
.ziplora-panel .row { display: flex; align-items: center; gap: 6px; min-width: 0; flex: none; }
.ziplora-panel .grow { flex: 1; min-width: 0; }
.ziplora-panel .head { flex: none; min-height: 60px; }
.ziplora-panel .head > * {
  display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 3;
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
.ziplora-panel .legend { gap: 0 8px; flex-wrap: wrap; min-height: 15px; white-space: nowrap; }
.ziplora-panel .legend i {
  display: inline-block; width: 10px; height: 3px; margin-right: 3px; vertical-align: middle;
}
.ziplora-panel .pictures { display: flex; flex-direction: column; flex: 3 1 110px; min-height: 0; }
.ziplora-panel .frame {
  display: flex; flex: 1; min-height: 0; align-items: center; justify-content: center;
}
.ziplora-panel .frame img { height: 100%; max-width: 100%; object-fit: contain; cursor: zoom-in; }
.ziplora-large { max-width: none; max-height: none; padding: 0; border: 0; background: none; cursor: zoom-out; }
.ziplora-large::backdrop { background: #000c; }
.ziplora-large img { display: block; max-width: 96vw; max-height: 96vh; min-height: min(60vh, 30vw); }
.ziplora-panel [hidden] { display: none !important; }
.ziplora-panel .tip {
  position: absolute; z-index: 1; padding: 3px 6px; border: 1px solid var(--border-color);
  border-radius: 4px; color: var(--fg-color); background: var(--comfy-menu-bg);
  white-space: pre; pointer-events: none;
}
.ziplora-panel .tip:empty { display: none; }
.ziplora-panel .tip canvas { display: block; position: static; }
.ziplora-panel .sheet {
  display: grid; flex: 1; min-height: 0; gap: 4px; grid-auto-rows: minmax(0, 1fr);
}
.ziplora-panel .sheet button {
  display: flex; flex-direction: column; min-width: 0; min-height: 0; padding: 2px;
  border-width: 2px;
}
.ziplora-panel .sheet img { flex: 1; min-height: 0; max-width: 100%; object-fit: contain; margin: auto; }
.ziplora-panel .sheet span {
  flex: none; width: 100%; overflow: hidden; text-overflow: ellipsis; white-space: nowrap;
}
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

let added = false;

/** Adds the style sheet to the page, once, with the first panel. */
export function addStyle() {
  if (added) return;
  added = true;
  const sheet = document.createElement("style");
  sheet.dataset.ziplora = "";
  sheet.textContent = STYLE;
  document.head.append(sheet);
  followPage();
}

/** Notifies every plot on the page when the user changes the colour palette or the zoom. */
function followPage() {
  const observer = new MutationObserver(() => notify("palette"));
  for (const element of [document.documentElement, document.body]) {
    observer.observe(element, { attributes: true, attributeFilter: ["class", "style"] });
  }
  let { scale } = app.canvas.ds;
  setInterval(() => { // the frontend has no event for it, and replaces its one callback
    if (app.canvas.ds.scale !== scale) notify("zoom");
    ({ scale } = app.canvas.ds);
  }, LOOK);
}

/** @param {string} event */
function notify(event) {
  for (const plot of document.querySelectorAll(".ziplora-panel .plot")) {
    plot.dispatchEvent(new Event(event));
  }
}
