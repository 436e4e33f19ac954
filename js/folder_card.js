// @ts-check
/** Shows the first pictures of a folder of training images, with their captions, when it is picked. */
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { opensLarge } from "./large_picture.js";
import { onChange } from "./number_widget.js";
import { also, classOf, fill, make, makePanel, showOnNode } from "./panel.js";
import { say } from "./translations.js";

const NODE = "LoadTrainingImages";
const FOLDER = "folder";
const HEIGHT = 138;

/**
 * @typedef {object} Said What the server says of a folder.
 * @property {number} count of all its pictures
 * @property {{ name: string, caption: string, version: string | null }[]} pictures the first ones
 * @property {string} problem
 */

class FolderCard {
  /** @param {import("./panel.js").Node} node */
  constructor(node) {
    this.node = node;
    this.folder = "";
    this.line = make("div", { class: "line" });
    this.tiles = make("div", { class: "tiles" });
    this.element = makePanel(say("The folder's pictures appear here."));
    this.element.classList.add("card");
    this.element.append(this.tiles, this.line);
    showOnNode(node, "folder_card", "Pictures of {title}", this.element, HEIGHT);
  }

  /** @param {boolean} [again] whether to read a folder that was read before: it may have changed */
  async read(again = false) {
    const folder = String(this.node.widgets?.find(({ name }) => name === FOLDER)?.value ?? "");
    if (!folder || (folder === this.folder && !again)) return;
    this.folder = folder;
    fill(this.element);
    const said = await ask(folder);
    if (folder === this.folder) this.show(said);
  }

  /** @param {Said} said */
  show({ count, pictures, problem }) {
    this.tiles.replaceChildren(...pictures.map((picture) => this.tile(picture)));
    const more = count - pictures.length;
    const all = count === 1 ? say("1 picture") : say("{count} pictures", { count });
    this.line.textContent = problem || (more > 0 ? say("and {more} more", { more }) : all);
    this.line.title = problem || all;
    this.line.toggleAttribute("data-wrong", Boolean(problem));
  }

  /** @param {HTMLImageElement} image one of those that are shown, all of which can be seen large */
  choice(image) {
    const images = [...this.tiles.querySelectorAll("img")];
    const all = images.map(({ src, alt, name }) => ({ src, alt, name, captions: [alt] }));
    const at = images.indexOf(image);
    return { all, at, other: (at + 1) % all.length };
  }

  /** @param {Said["pictures"][number]} picture */
  tile({ name, caption, version }) {
    const under = make("span", { title: `${name}\n${caption}` }, caption || name);
    if (!caption) under.classList.add("faint");
    if (version === null) return make("div", { class: "tile" }, make("div", { class: "none" }, "?"), under);
    const query = new URLSearchParams({ name: this.folder, picture: name, version });
    const src = api.apiURL(`/ziplora/folder/picture?${query}`);
    const image = make("img", { src, name, alt: caption || name, draggable: "false" });
    opensLarge(image, () => this.choice(image));
    return make("div", { class: "tile" }, image, under);
  }
}

/**
 * @param {string} folder
 * @returns {Promise<Said>}
 */
async function ask(folder) {
  const nothing = { count: 0, pictures: [] };
  try {
    const answer = await api.fetchApi(`/ziplora/folder?${new URLSearchParams({ name: folder })}`);
    return await answer.json();
  } catch {
    return { ...nothing, problem: say("The server does not answer.") };
  }
}

/** @type {Set<FolderCard>} */
const cards = new Set();

app.registerExtension({
  name: "ziplora.folder_card",
  nodeCreated(node) {
    if (classOf(node) !== NODE) return;
    const card = new FolderCard(node);
    cards.add(card);
    also(node, "onRemoved", () => cards.delete(card));
    also(node, "onExecuted", () => card.read(true));
    const widget = node.widgets?.find(({ name }) => name === FOLDER);
    if (widget) onChange(widget, () => card.read());
    queueMicrotask(() => card.read()); // a workflow has set its value then
  },
  refreshComboInNodes() {
    for (const card of cards) card.read(true);
  },
});
