// @ts-check
/** One past training: its losses, samples, files and settings, and what can be done with it. */
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { make } from "./panel.js";
import { curvesOf, drawn, samplesOf } from "./past_curves.js";
import { goOn, pathOf, queued, remove } from "./past_data.js";
import { how, titleOf, when } from "./past_words.js";
import { say } from "./translations.js";

/** @typedef {import("./past_data.js").Details} Details */
/** @typedef {{ tell: (words: string) => void, leave: (words: string) => void }} Tells */

/**
 * Makes the view of one training.
 * @param {Details} training
 * @param {Tells} tells
 */
export function shown(training, tells) {
  const curves = curvesOf(training);
  const samples = samplesOf(training)?.element;
  const files = training.files.map((file) => {
    const step = training.saved_at[file];
    return make("li", {}, step ? `${file} · ${say("step {step}", { step })}` : file);
  });
  return [
    make("h3", {}, titleOf(training)),
    make("div", { class: "faint" }, how(training)),
    make("div", { class: "faint numbers" }, when(training)),
    ...(curves.steps.length ? [drawn(curves)] : []),
    ...(samples ? [samples] : []),
    make("div", { class: "row acts" }, ...acts(training, tells)),
    ...part(say("Files"), files.length ? make("ul", {}, ...files) : say("Its LoRA is not in a file. A Save node after the training writes one.")),
    ...(training.settings.length ? part(say("Settings"), settings(training)) : []),
  ];
}

/**
 * @param {string} title
 * @param {Element | string} content
 */
function part(title, content) {
  return [make("h4", {}, title), content];
}

/**
 * @param {Details} training
 * @param {Tells} tells
 */
function acts(training, tells) {
  const { name, state, recorded, continues } = training;
  const open = act(say("Open workflow"), say("Open the workflow as it was queued, in a new tab"), tells, async () => {
    const { workflow } = await queued(name);
    if (workflow) await app.loadGraphData(workflow, true, true, titleOf(training));
    else tells.tell(say("It was queued without a workflow."));
  });
  const on = act(say("Continue"), say("Train on, from where it ended to its last step"), tells, async () => {
    const step = await goOn(name);
    on.hidden = true; // another press would train it once more
    tells.tell(say("Queued; it trains on from step {step}.", { step }));
  });
  const away = act(say("Delete"), say("Delete its record and what is needed to continue; LoRA files stay"), tells, async () => {
    const sure = await app.extensionManager.dialog.confirm({
      title: say("Delete this training?"),
      message: say("Losses, samples and the checkpoint are deleted. LoRA files stay."),
      type: "delete",
      itemList: [titleOf(training)],
    });
    if (!sure) return;
    await remove(name);
    tells.leave(say("Deleted."));
  });
  on.hidden = !continues;
  open.hidden = !recorded;
  away.disabled = state === "running";
  const exports = recorded ? [link(name, "history.csv", "CSV"), link(name, "events", "TensorBoard")] : [];
  return [open, on, ...exports, away];
}

/**
 * @param {string} label
 * @param {string} title
 * @param {Tells} tells of a failure
 * @param {() => Promise<void>} does
 */
function act(label, title, tells, does) {
  const button = make("button", { type: "button", title }, label);
  button.addEventListener("click", async () => {
    button.disabled = true; // one press, one deed
    try {
      await does();
    } catch (error) {
      tells.tell(error instanceof Error ? error.message : String(error));
    }
    button.disabled = false;
  });
  return button;
}

/**
 * @param {string} name
 * @param {string} file
 * @param {string} label
 */
function link(name, file, label) {
  const title = say("Download the losses for {program}", { program: label });
  return make("a", { href: api.apiURL(pathOf(name, file)), download: "", title, class: "button" }, label);
}

/** @param {Details} training */
function settings({ settings }) {
  let last = "";
  const rows = settings.flatMap(({ node, input, value }) => {
    const row = make("tr", {}, make("th", { scope: "row" }, input), make("td", {}, String(value)));
    if (node === last) return [row];
    last = node;
    return [make("tr", {}, make("th", { colspan: "2", scope: "rowgroup", class: "node" }, node)), row];
  });
  return make("table", {}, ...rows);
}
