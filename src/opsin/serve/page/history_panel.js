/** The dialog of former conversations: search, open, delete, export and import. */

import {$, button, make} from "./dom.js";
import * as history from "./history.js";
import {asMarkdown, isRecord} from "./record.js";

export class HistoryPanel {
  /** `talk` shows what is opened. */
  constructor(talk) {
    this.talk = talk;
    $("search").oninput = () => this.list();
    $("export-all").onclick = () => this.attempt(async () => download("opsin-conversations.json", await history.all()));
    $("export-json").onclick = () => download(`${nameOf(talk.record)}.json`, [talk.record]);
    $("export-markdown").onclick = () => download(`${nameOf(talk.record)}.md`, asMarkdown(talk.record));
    $("import").onchange = () => this.attempt(() => this.import($("import").files[0]));
    $("delete-all").onclick = () => this.attempt(() => this.clear());
  }

  open() {
    $("search").value = "";
    for (const name of ["export-json", "export-markdown"]) $(name).disabled = !this.talk.record.messages.length;
    $("history").showModal();
    return this.list();
  }

  list() {
    return this.attempt(async () => {
      const heads = await history.search($("search").value);
      $("found").replaceChildren(...heads.map((head) => this.entry(head)));
      $("none").hidden = heads.length > 0;
    });
  }

  entry({id, title, changed}) {
    const date = make("time", {dateTime: new Date(changed).toISOString()}, new Date(changed).toLocaleDateString());
    const open = button(title, () => this.attempt(() => this.show(id)), {className: "open"});
    open.append(date);
    if (id === this.talk.record.id) open.setAttribute("aria-current", "true");
    return make("li", {}, open, button("Delete", () => this.attempt(() => this.remove(id)), {name: `Delete ${title}`}));
  }

  async show(id) {
    this.talk.show(await history.find(id));
    $("history").close();
  }

  async remove(id) {
    if (id === this.talk.record.id) this.talk.forget();
    await history.remove(id);
    await this.list();
    $("search").focus();
  }

  async clear() {
    if (!confirm("Delete all conversations from this browser?")) return;
    this.talk.forget();
    await history.clear();
    await this.list();
  }

  async import(file) {
    $("import").value = "";
    const records = JSON.parse(await file.text());
    const isOurs = Array.isArray(records) && records.every(isRecord);
    if (!isOurs) throw new Error(`${file.name} holds no conversations of this page`);
    for (const record of records) await history.save(record);
    await this.list();
  }

  /** What fails is told where the person looks: in the dialog. */
  async attempt(work) {
    $("history-problem").textContent = "";
    try {
      await work();
    } catch (error) {
      $("history-problem").textContent = error?.message ?? "This browser keeps no conversations.";
    }
  }
}

const nameOf = ({title}) => title.replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 40).replace(/^-|-$/g, "") || "conversation";

/** A text, or records as JSON, as a file. */
function download(name, content) {
  const text = typeof content === "string" ? content : JSON.stringify(content, null, 1);
  const url = URL.createObjectURL(new Blob([text]));
  make("a", {href: url, download: name}).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
