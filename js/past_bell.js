// @ts-check
/**
 * Notifies a person who looks elsewhere that a long training has ended: only once asked to, by the
 * bell in the list of past trainings, and if the browser allows it.
 */
import { api } from "../../scripts/api.js";
import { make } from "./panel.js";
import { say } from "./translations.js";

/** Where the browser remembers the wish. */
const KEY = "ziplora.bell";
/** Milliseconds of a training that is long. */
const LONG = 60_000;

/** @type {Map<string, number>} when each run that is under way was first heard of */
const since = new Map();

function isOn() {
  return globalThis.Notification?.permission === "granted" && localStorage.getItem(KEY) === "on";
}

/**
 * Makes the bell.
 * @param {(words: string) => void} tell says why it cannot be switched on
 */
export function bell(tell) {
  const icon = make("i", { "aria-hidden": "true" });
  const button = make("button", { type: "button" }, icon);
  const show = () => {
    icon.className = `pi ${isOn() ? "pi-bell" : "pi-bell-slash"}`;
    button.setAttribute("aria-pressed", String(isOn()));
  };
  button.title = say("Notify me when a training of more than a minute ends while I look elsewhere");
  button.setAttribute("aria-label", button.title);
  button.hidden = !("Notification" in globalThis); // a page that is not from this computer needs HTTPS
  button.addEventListener("click", async () => {
    if (isOn()) localStorage.removeItem(KEY);
    else if (await Notification.requestPermission() === "granted") localStorage.setItem(KEY, "on");
    else tell(say("The browser does not allow notifications for this page."));
    show();
  });
  show();
  return button;
}

/** @param {any} event of a training */
function hear({ detail }) {
  const { run, state, step, steps } = detail ?? {};
  const started = since.get(run);
  if (state === "running") {
    if (started === undefined) since.set(run, Date.now());
    return;
  }
  since.delete(run);
  if (started === undefined || Date.now() - started < LONG || !document.hidden || !isOn()) return;
  const body = steps ? say("step {step} of {steps}", { step, steps }) : "";
  const title = say(state === "failed" ? "A training ended with an error" : "A training has ended");
  try {
    const shown = new Notification(title, { body, tag: run }); // one for all tabs
    shown.addEventListener("click", () => window.focus());
  } catch {
    // Some browsers notify from a service worker only.
  }
}

/** @type {EventTarget} */ (api).addEventListener("ziplora.training", hear);
