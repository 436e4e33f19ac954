// @ts-check
/** A picture of a panel in the size of the window. */
import { make } from "./panel.js";
import { say } from "./translations.js";

/**
 * Lets a click, or Enter, show a picture large; another click, or Escape, closes it.
 * @param {HTMLImageElement} picture
 */
export function opensLarge(picture) {
  picture.tabIndex = 0;
  picture.setAttribute("role", "button");
  picture.title = say("Click to see it large");
  picture.addEventListener("click", () => show(picture));
  picture.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    show(picture);
  });
}

/** @param {HTMLImageElement} picture */
function show({ src, alt }) {
  const dialog = make("dialog", { class: "ziplora-large" }, make("img", { src, alt }));
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    if (event.key !== "Escape") return;
    event.preventDefault();
    event.stopPropagation();
    dialog.close();
  };
  window.addEventListener("keydown", onKey, true); // the frontend keeps Escape from the dialog
  dialog.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    window.removeEventListener("keydown", onKey, true);
    dialog.remove();
  });
  document.body.append(dialog);
  dialog.showModal();
}
