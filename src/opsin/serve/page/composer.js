/** Where a question is written: its text and its media, which come by choosing, dropping, pasting, camera, microphone.
 *
 * Files of text become part of the text: people see what is sent.
 */

import {$, button, make} from "./dom.js";
import {dataUrl, nameNode, pictureNode} from "./media.js";
import {KINDS, bytesOf, partOf} from "./record.js";
import {newUuid} from "./sent_once.js";

const MOST_BYTES = 45e6;  // of media in a conversation: base64 makes a third more of them
const MOST_TEXT_BYTES = 1e6;  // of a file of text
const MOST_ROWS = 12;

export class Composer {
  /** `fail` tells a person what went wrong, `takes(kind)` is whether the model takes media of a kind, `held()` are the
   * bytes of those that were sent before, which are sent again. */
  constructor({fail, takes, held}) {
    Object.assign(this, {fail, takes, held, media: []});
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
    return !$("text").value && !this.media.length;
  }

  /** Put a question there, as another one to begin with or one to mend. */
  set(text = "", media = []) {
    $("text").value = text;
    this.media = media;
    this.show();
    $("text").focus();
  }

  async take(files) {
    for (const file of files) {
      const kind = file.type.split("/")[0];
      const problem = Object.hasOwn(KINDS, kind) ? await this.takeMedium(kind, file) : await takeText(file);
      if (problem) this.fail(problem);
    }
    this.show();
    $("text").focus();
  }

  /** Why a medium cannot be taken; nothing where it was. */
  async takeMedium(kind, file) {
    const kinds = Object.keys(KINDS).filter((one) => this.takes(one)).map((one) => `${KINDS[one]}s`);
    if (!this.takes(kind)) return `This model takes ${kinds.join(", ") || "text"} only: no ${KINDS[kind]}s.`;
    const bytes = this.held() + bytesOf(this.media) + file.size;
    if (bytes > MOST_BYTES) return `${file.name} is too large to be sent with the rest.`;
    this.media.push({kind, url: await dataUrl(file), name: file.name || `${KINDS[kind]} ${this.media.length + 1}`});
    return "";
  }

  show() {
    $("chosen").replaceChildren(...this.media.map((medium, place) => {
      const away = button("", () => {
        this.media = this.media.toSpliced(place, 1);
        this.show();
        $("text").focus();
      }, {name: `Take away ${medium.name}`});
      away.append(medium.kind === "image" ? pictureNode(medium, "") : nameNode(medium.name));
      return away;
    }));
  }

  /** The message of what is written; null where nothing is. */
  message() {
    const {text, media} = this;
    if (!text && !media.length) return null;
    if (!media.length) return {role: "user", content: text};
    const parts = media.map((one) => partOf(one.kind === "image" ? {uuid: newUuid(), ...one} : one));
    const content = text ? [...parts, {type: "text", text}] : parts;
    return {role: "user", content, about: {names: media.map(({name}) => name)}};
  }
}

/** Add a file's text to the question, fenced. Why it cannot be; nothing where it was. */
async function takeText(file) {
  if (file.size > MOST_TEXT_BYTES) return `${file.name} is too large, or no medium.`;
  const text = textIn(await file.arrayBuffer());
  if (text === null) return `${file.name} is neither a medium nor a text.`;
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

export const inDialog = () => document.querySelector("dialog[open]") !== null;
