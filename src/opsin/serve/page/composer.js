/** Where a question is written: its text and its pictures, which come by choosing, dropping, pasting and the camera.
 *
 * Files of text become part of the text: people see what is sent.
 */

import {$, button, make} from "./dom.js";
import {bytesOf} from "./record.js";

const MOST_BYTES = 45e6;  // of pictures in a conversation: base64 makes a third more of them
const MOST_TEXT_BYTES = 1e6;  // of a file of text
const MOST_ROWS = 12;

export class Composer {
  /** `fail` tells a person what went wrong, `sees()` is whether the model takes pictures, `held()` are the bytes of
   * those that were sent before, which are sent again. */
  constructor({fail, sees, held}) {
    Object.assign(this, {fail, sees, held, pictures: []});
    $("file").onchange = () => { this.take([...$("file").files]); $("file").value = ""; };
    if (!CSS.supports("field-sizing", "content")) $("text").oninput = fitRows;
    addEventListener("paste", (event) => {
      if (!event.clipboardData?.files.length || inDialog()) return;
      event.preventDefault();
      this.take([...event.clipboardData.files]);
    });
    for (const name of ["dragover", "dragleave", "drop"]) addEventListener(name, (event) => this.drag(event));
  }

  /** Files are taken wherever they are dropped; a text goes where it falls. */
  drag(event) {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    $("ask").classList.toggle("over", event.type === "dragover");
    if (event.type === "drop") this.take([...event.dataTransfer.files]);
  }

  get text() {
    return $("text").value.trim();
  }

  get isEmpty() {
    return !$("text").value && !this.pictures.length;
  }

  /** Put a question there, as another one to begin with or one to mend. */
  set(text = "", pictures = []) {
    $("text").value = text;
    this.pictures = pictures;
    this.show();
    $("text").focus();
  }

  async take(files) {
    for (const file of files) {
      const problem = file.type.startsWith("image/") ? await this.takePicture(file) : await takeText(file);
      if (problem) this.fail(problem);
    }
    this.show();
    $("text").focus();
  }

  /** Why a picture cannot be taken; nothing where it was. */
  async takePicture(file) {
    if (!this.sees()) return "This model takes text only: it cannot see pictures.";
    const bytes = this.held() + bytesOf(this.pictures) + file.size;
    if (bytes > MOST_BYTES) return `${file.name} is too large to be sent with the rest.`;
    this.pictures.push({url: await dataUrl(file), name: file.name || `picture ${this.pictures.length + 1}`});
    return "";
  }

  show() {
    $("chosen").replaceChildren(...this.pictures.map((picture, place) => {
      const away = button("", () => {
        this.pictures = this.pictures.toSpliced(place, 1);
        this.show();
        $("text").focus();
      }, {name: `Take away ${picture.name}`});
      away.append(pictureNode(picture, ""));
      return away;
    }));
  }

  /** The message of what is written; null where nothing is. */
  message() {
    const {text, pictures} = this;
    if (!text && !pictures.length) return null;
    if (!pictures.length) return {role: "user", content: text};
    const parts = pictures.map(({url}) => ({type: "image_url", image_url: {url}}));
    const content = text ? [...parts, {type: "text", text}] : parts;
    return {role: "user", content, about: {names: pictures.map(({name}) => name)}};
  }
}

/** Add a file's text to the question, fenced. Why it cannot be; nothing where it was. */
async function takeText(file) {
  if (file.size > MOST_TEXT_BYTES) return `${file.name} is too large, or not a picture.`;
  const text = textIn(await file.arrayBuffer());
  if (text === null) return `${file.name} is neither a picture nor a text.`;
  const longest = Math.max(2, ...Array.from(text.matchAll(/`+/g), ([ticks]) => ticks.length));
  const fence = "`".repeat(longest + 1);
  const fenced = `${file.name}:\n${fence}\n${text.trimEnd()}\n${fence}\n`;
  $("text").value = [$("text").value.trimEnd(), fenced].filter(Boolean).join("\n\n");
  return "";
}

function textIn(bytes) {
  try {
    const text = new TextDecoder("utf-8", {fatal: true}).decode(bytes);
    return text.includes("\0") ? null : text;
  } catch {
    return null;
  }
}

/** For browsers that do not do it themselves. */
function fitRows() {
  $("text").rows = Math.min(MOST_ROWS, $("text").value.split("\n").length);
}

/** A picture, or its name where the browser cannot show it: the server may know more kinds. */
export function pictureNode({url, name}, alt = name) {
  const image = make("img", {src: url, alt});
  image.onerror = () => image.replaceWith(make("span", {className: "unseen"}, `${name} (cannot be shown here)`));
  return image;
}

/** A file or blob as an address that holds it. */
export function dataUrl(blob) {
  return new Promise((done, refuse) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => refuse(reader.error);
    reader.readAsDataURL(blob);
  });
}

export const inDialog = () => document.querySelector("dialog[open]") !== null;
