// @ts-check
/** A picture with a caption below each of its parts, as large as its place allows. */
import { make } from "./panel.js";
import { say } from "./translations.js";

/**
 * @typedef {object} Shown A picture, or several side by side in one file.
 * @property {string} src
 * @property {string} name what tells it from others of its kind, such as its step
 * @property {string} alt what it is
 * @property {string[]} captions what each of its parts is, from left to right
 */

export class Strip {
  constructor() {
    this.picture = make("img", { alt: "", draggable: "false" });
    this.stack = make("div", { class: "stack" }, this.picture);
    this.captions = make("div", { class: "captions numbers" });
    this.element = make("figure", { class: "ziplora-strip" }, this.stack, this.captions);
    this.picture.addEventListener("load", () => {
      const { naturalWidth, naturalHeight } = this.picture;
      this.element.style.setProperty("--ratio", String(naturalWidth / naturalHeight));
    });
  }

  /** @param {Shown} shown */
  show({ src, alt, captions }) {
    if (this.picture.getAttribute("src") !== src) this.picture.setAttribute("src", src);
    this.picture.alt = alt;
    this.write(captions.map((caption) => say(caption)));
  }

  /** @param {string[]} captions in the language of the page */
  write(captions) {
    this.captions.replaceChildren(...captions.map((caption) => make("span", { title: caption }, caption)));
    this.captions.hidden = captions.length === 0;
    this.element.style.setProperty("--parts", String(Math.max(1, captions.length)));
  }
}
