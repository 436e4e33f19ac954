// @ts-check
/** The style sheet of all panels and reports. Its rules apply inside these only. */
import { app } from "../../scripts/app.js";

/** Milliseconds between two looks at the zoom. */
const LOOK = 400;

const STYLE = `
.ziplora-panel[data-ziplora-old]:not(.card), .ziplora-report[data-ziplora-old] { opacity: 0.6; }
.ziplora-report[data-failed] { outline: 1px solid #e0524f; outline-offset: -1px; }
.ziplora-panel, .ziplora-large { --ziplora-accent: #3b9eff; }
.ziplora-panel {
  box-sizing: border-box; display: flex; flex-direction: column; gap: 4px; height: 100%;
  padding: 6px; overflow: hidden; border-radius: 4px; color: var(--fg-color);
  background: var(--comfy-input-bg); font: 11px/1.35 system-ui, sans-serif;
}
.ziplora-panel *, .ziplora-large * { box-sizing: border-box; }
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
.ziplora-panel button, .ziplora-panel select, .ziplora-large button, .ziplora-large select {
  min-height: 24px; padding: 0 8px; border: 1px solid var(--border-color); border-radius: 4px;
  color: var(--fg-color); background: var(--comfy-menu-bg, transparent); font: inherit;
  cursor: pointer;
}
.ziplora-panel button:hover:enabled, .ziplora-large button:hover:enabled { border-color: currentColor; }
.ziplora-panel button:disabled { opacity: 0.55; cursor: default; }
.ziplora-panel button[aria-pressed="true"], .ziplora-large button[aria-pressed="true"] {
  border-color: var(--ziplora-accent);
  background: color-mix(in srgb, var(--ziplora-accent) 30%, transparent);
}
.ziplora-panel :focus-visible, .ziplora-large :focus-visible { outline: 2px solid var(--ziplora-accent); outline-offset: 1px; }
.ziplora-panel input[type="range"] { min-height: 24px; accent-color: var(--ziplora-accent); }
.ziplora-panel .plot { position: relative; flex: 2 1 80px; min-height: 60px; }
.ziplora-panel .plot canvas { position: absolute; inset: 0; width: 100%; height: 100%; }
.ziplora-panel .legend { gap: 0 8px; flex-wrap: wrap; min-height: 15px; white-space: nowrap; }
.ziplora-panel .legend i {
  display: inline-block; width: 10px; height: 3px; margin-right: 3px; vertical-align: middle;
}
.ziplora-panel .pictures { display: flex; flex-direction: column; flex: 3 1 110px; min-height: 0; }
.ziplora-panel .frame { flex: 1; min-height: 0; }
.ziplora-panel .ziplora-strip img { cursor: zoom-in; }
.ziplora-panel .frame, .ziplora-large .frame {
  display: flex; container-type: size; align-items: center; justify-content: center;
}
.ziplora-strip {
  --text: calc(1.35em + 2px);
  width: min(100cqw, calc((100cqh - var(--below, var(--text))) * var(--ratio, 1))); margin: 0;
}
.ziplora-strip:has(> .captions[hidden]) { --below: 0px; }
.ziplora-large .ziplora-strip:has(> figcaption) { --below: calc(2 * var(--text)); }
.ziplora-strip .stack { position: relative; }
.ziplora-strip img { display: block; width: 100%; aspect-ratio: var(--ratio, 1); }
.ziplora-strip .captions { display: grid; grid-auto-columns: minmax(0, 1fr); grid-auto-flow: column; gap: 4px; }
.ziplora-strip .captions span, .ziplora-large figcaption {
  height: var(--text); overflow: hidden; text-align: center; text-overflow: ellipsis; white-space: nowrap;
}
.ziplora-large {
  width: 96vw; height: 96vh; max-width: none; max-height: none; padding: 8px; box-sizing: border-box;
  border: 1px solid var(--border-color); border-radius: 8px; overflow: hidden;
  color: var(--fg-color); background: var(--comfy-menu-bg); font: 13px/1.35 system-ui, sans-serif;
}
.ziplora-large[open] { display: flex; flex-direction: column; gap: 8px; }
.ziplora-large::backdrop { background: #000a; }
.ziplora-large .bar { display: flex; gap: 6px; flex: none; }
.ziplora-large .bar > span { flex: 1; }
.ziplora-large .row { display: flex; gap: 6px; }
.ziplora-large .view { display: grid; flex: 1; min-height: 0; gap: 8px; }
.ziplora-large .view.beside { grid-template-columns: 1fr 1fr; }
.ziplora-large .view.beside.wide { grid-template: 1fr 1fr / 1fr; }
.ziplora-large .closes { cursor: zoom-out; }
.ziplora-large .after, .ziplora-large .divider { position: absolute; inset: 0; width: 100%; height: 100%; }
.ziplora-large .after {
  mask: linear-gradient(to right, transparent var(--at), black 0) 0 0 / calc(100% / var(--parts)) 100% repeat-x;
}
.ziplora-large .divider { display: flex; cursor: ew-resize; touch-action: none; }
.ziplora-large .divider span { flex: 1; }
.ziplora-large .divider i {
  display: block; height: 100%; width: 2px; margin-left: calc(var(--at) - 1px);
  position: relative; background: #fff; box-shadow: 0 0 3px #000;
}
.ziplora-large .divider i::after {
  content: ""; position: absolute; top: 50%; left: -9px; width: 20px; height: 20px; margin-top: -10px;
  border: 2px solid #fff; border-radius: 50%; background: #0008;
}
.ziplora-panel [hidden], .ziplora-large [hidden] { display: none !important; }
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
.ziplora-panel.slider { gap: 0; padding-block: 4px; }
.ziplora-panel .named { flex: none; }
.ziplora-panel .name { display: flex; gap: 8px; align-items: baseline; white-space: nowrap; }
.ziplora-panel .said { min-width: 0; overflow: hidden; text-overflow: ellipsis; opacity: 0.7; }
.ziplora-panel .track {
  --part: var(--ziplora-accent); --beyond: #ff9f43; --wrong: #e0524f;
  position: relative; height: 24px; margin: 8px 20px 0; touch-action: none; cursor: pointer;
}
.ziplora-panel .track > * { position: absolute; }
.ziplora-panel .track .rail, .ziplora-panel .track .part {
  top: 12px; height: 4px; border-radius: 2px;
}
.ziplora-panel .track .rail { left: 0; right: 0; background: currentColor; opacity: 0.25; }
.ziplora-panel .track .part { background: var(--part); }
.ziplora-panel .track .part.beyond { --part: var(--beyond); }
.ziplora-panel .track .trained {
  top: 7px; height: 14px; border: 1px solid currentColor; border-radius: 3px; opacity: 0.5;
}
.ziplora-panel .track .zero { left: 50%; top: 7px; width: 1px; height: 17px; background: currentColor; }
.ziplora-panel .track .thumb {
  top: 2px; width: 24px; height: 24px; margin-left: -12px; border-radius: 50%; touch-action: none;
}
.ziplora-panel .track .thumb::after {
  content: ""; position: absolute; inset: 5px; border-radius: 50%;
  background: var(--part); border: 2px solid var(--fg-color);
}
.ziplora-panel .track .thumb[data-beyond] { --part: var(--beyond); }
.ziplora-panel .track .value {
  top: -9px; line-height: 15px; transform: translateX(-50%); white-space: nowrap; pointer-events: none;
}
.ziplora-panel .said[data-beyond] { opacity: 1; color: color-mix(in srgb, #ff9f43 60%, var(--fg-color)); }
.ziplora-panel [data-wrong] .said { opacity: 1; color: color-mix(in srgb, #e0524f 60%, var(--fg-color)); }
.ziplora-panel [data-wrong] .track { --part: var(--wrong); }
.ziplora-panel .track[aria-disabled="true"] { opacity: 0.45; cursor: default; }
.ziplora-panel.card { gap: 6px; }
.ziplora-panel .file { display: flex; flex: 1; gap: 8px; min-height: 0; }
.ziplora-panel .file img { width: 62px; height: 62px; border-radius: 4px; object-fit: cover; cursor: zoom-in; }
.ziplora-panel .about { display: flex; flex: 1; flex-direction: column; gap: 2px; min-width: 0; user-select: text; }
.ziplora-panel .facts, .ziplora-panel .words, .ziplora-panel .done, .ziplora-panel .line {
  flex: none; overflow: hidden; text-overflow: ellipsis; white-space: nowrap;
}
.ziplora-panel .file .done { flex: 1; }
.ziplora-panel.card [data-wrong] { color: #e0524f; }
.ziplora-panel .facts[data-wrong], .ziplora-panel .line[data-wrong], .ziplora-panel .tile span {
  display: -webkit-box; overflow: hidden; flex: none; -webkit-box-orient: vertical; -webkit-line-clamp: 2; white-space: normal; overflow-wrap: anywhere;
}
.ziplora-panel .tiles { display: grid; flex: 1; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: 6px; min-height: 0; }
.ziplora-panel .tile { display: flex; flex-direction: column; gap: 2px; min-height: 0; }
.ziplora-panel .tile img, .ziplora-panel .tile .none {
  flex: 1; min-height: 0; width: 100%; border-radius: 4px; object-fit: cover; cursor: zoom-in;
}
.ziplora-panel .tile .none { display: grid; place-items: center; border: 1px solid var(--border-color); cursor: default; }
.ziplora-panel .ends {
  position: relative; display: flex; justify-content: space-between; padding: 0 12px; line-height: 16px;
}
.ziplora-panel .ends :nth-child(2) { position: absolute; left: 50%; transform: translateX(-50%); }
.ziplora-panel[data-ziplora-off="muted"]:not([data-node-id] *),
.ziplora-report[data-ziplora-off="muted"]:not([data-node-id] *) { opacity: 0.4; }
.ziplora-panel[data-ziplora-off="bypassed"]:not([data-node-id] *),
.ziplora-report[data-ziplora-off="bypassed"]:not([data-node-id] *) { opacity: 0.2; }
.ziplora-panel.past {
  gap: 8px; padding: 12px; overflow: auto; border-radius: 0; background: var(--comfy-menu-bg); font-size: 12px;
}
.ziplora-panel.past .running { display: flex; flex-direction: column; gap: 12px; background: inherit; }
.ziplora-panel.past .running:empty { display: none; }
.ziplora-panel.past .running:not(:empty) ~ .view > .nothing { display: none; }
.ziplora-panel.past .running .ziplora-panel { height: auto; flex: none; overflow: visible; }
.ziplora-panel.past .view { display: flex; flex-direction: column; gap: 8px; background: inherit; }
.ziplora-panel.past .curves { background: inherit; }
.ziplora-panel.past .plot { height: 150px; }
.ziplora-panel.past .pictures { flex: none; }
.ziplora-panel.past .frame { flex: none; height: 260px; }
.ziplora-panel.past .acts { flex-wrap: wrap; }
.ziplora-panel.past .button {
  display: inline-flex; align-items: center; min-height: 24px; padding: 0 8px; border-radius: 4px;
  border: 1px solid var(--border-color); color: inherit; text-decoration: none;
}
.ziplora-panel.past :is(h2, h3, h4, p, ul) { margin: 0; padding: 0; font: inherit; overflow-wrap: anywhere; }
.ziplora-panel.past :is(h2, h3) { font-size: 14px; font-weight: 600; }
.ziplora-panel.past h4 { margin-top: 6px; font-weight: 600; }
.ziplora-panel.past li { list-style: none; overflow-wrap: anywhere; }
.ziplora-panel.past [role="status"]:empty { display: none; }
.ziplora-panel.past .entries { display: flex; flex-direction: column; gap: 6px; }
.ziplora-panel.past .entry { display: flex; align-items: center; gap: 8px; }
.ziplora-panel.past .entry button {
  display: flex; flex: 1; gap: 8px; align-items: center; min-width: 0; padding: 6px; text-align: left;
}
.ziplora-panel.past .entry img { width: 48px; height: 48px; object-fit: cover; border-radius: 3px; }
.ziplora-panel.past .entry .grow > * { display: block; }
.ziplora-panel.past .entry .faint { font-size: 11px; }
.ziplora-panel.past .entry .title {
  display: -webkit-box; overflow: hidden; -webkit-box-orient: vertical; -webkit-line-clamp: 3; overflow-wrap: anywhere;
}
.ziplora-panel.past table { width: 100%; border-collapse: collapse; table-layout: fixed; }
.ziplora-panel.past :is(th, td) {
  padding: 2px 6px 2px 0; text-align: left; vertical-align: top; overflow-wrap: anywhere; font-weight: normal;
}
.ziplora-panel.past tr { border-bottom: 1px solid var(--border-color); }
.ziplora-panel.past th { opacity: 0.7; }
.ziplora-panel.past th.node { padding-top: 8px; font-weight: 600; opacity: 1; }
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
