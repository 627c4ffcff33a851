/** Where a question is written: its text and its pictures, which come by choosing, dropping, pasting and the camera. */

import {$, button, make} from "./dom.js";

const MOST_BYTES = 45e6;  // of pictures in one question: base64 makes a third more of them

export class Composer {
  /** `fail` tells a person what went wrong; `sees()` is whether the model takes pictures. */
  constructor(fail, sees) {
    Object.assign(this, {fail, sees, pictures: []});
    $("file").onchange = () => { this.take([...$("file").files]); $("file").value = ""; };
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
    if (files.length && !this.sees()) { this.fail("This model takes text only: it cannot see pictures."); return; }
    for (const file of files) {
      const problem = this.problemOf(file);
      if (problem) this.fail(problem);
      else this.pictures.push({url: await dataUrl(file), name: file.name || `picture ${this.pictures.length + 1}`});
    }
    this.show();
    $("text").focus();
  }

  problemOf(file) {
    const used = this.pictures.reduce((sum, {url}) => sum + url.length * .75, 0);
    if (!file.type.startsWith("image/")) return `${file.name} is not a picture.`;
    return used + file.size > MOST_BYTES ? `${file.name} is too large to be sent with the rest.` : "";
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
