/** Former conversations: search, open, delete, export and import. Beside a wide page, in a drawer of a narrow one. */

import {$, button, make} from "./dom.js";
import * as history from "./history.js";
import {asMarkdown, isRecord} from "./record.js";

const PLACE = "opsin.history";  // whether a person wants it beside the page
const WIDE = matchMedia("(min-width: 64rem)");

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
    // A drawer closes by itself where one presses beside it, also on the button that opens it.
    $("open-history").onpointerdown = () => { this.wasOpen = this.isOpen; };
    $("open-history").onclick = ({detail}) => (detail ? this.wasOpen : this.isOpen) ? this.close() : this.open();
    $("close-history").onclick = () => this.close();
    $("history").ontoggle = () => this.tell();
    WIDE.onchange = () => this.place(this.isOpen && WIDE.matches);
  }

  /** Whether it is above the page. */
  get isDrawer() {
    return $("history").matches(":popover-open");
  }

  get isOpen() {
    return $("history").checkVisibility();
  }

  /** Begin as a person left it: beside a wide page, once there are any, unless it was closed. */
  async begin() {
    const heads = await history.search("").catch(() => []);
    if (WIDE.matches && heads.length && remembered() !== "closed") this.place(true);
    return this.refresh();
  }

  /** Open it, and search. */
  open() {
    if (!this.isOpen) this.place(true);
    remember("open");
    $("search").value = "";
    $("search").focus();
    return this.refresh();
  }

  close() {
    const hadFocus = $("history").contains(document.activeElement);
    this.place(false);
    remember("closed");
    if (hadFocus) $("open-history").focus();
  }

  /** A drawer is above the page, and closes by Esc and where one looks elsewhere. */
  place(isOpen) {
    const panel = $("history");
    if (this.isDrawer) panel.hidePopover();
    panel.popover = WIDE.matches ? null : "auto";
    panel.hidden = !isOpen;
    if (isOpen && !WIDE.matches) panel.showPopover();
    this.tell();
  }

  tell() {
    $("open-history").setAttribute("aria-expanded", String(this.isOpen));
  }

  /** Conversations have changed, or another one is shown. */
  refresh() {
    if (!this.isOpen) return null;
    for (const name of ["export-json", "export-markdown"]) $(name).disabled = !this.talk.record.messages.length;
    return this.list();
  }

  list() {
    return this.attempt(async () => {
      const heads = await history.search($("search").value), focused = document.activeElement?.dataset.id;
      $("found").replaceChildren(...heads.map((head) => this.entry(head)));
      $("none").hidden = heads.length > 0;
      if (focused) $("found").querySelector(`[data-id="${CSS.escape(focused)}"]`)?.focus();
    });
  }

  entry({id, title, changed}) {
    const date = make("time", {dateTime: new Date(changed).toISOString()}, new Date(changed).toLocaleDateString());
    const open = button(title, () => this.attempt(() => this.show(id)), {className: "open"});
    open.dataset.id = id;
    open.append(date);
    const looks = {name: `Delete ${title}`, className: "delete"};
    const remove = button("Delete", () => this.attempt(() => this.remove(id)), looks);
    if (id === this.talk.record.id) open.setAttribute("aria-current", "true");
    return make("li", {}, open, remove);
  }

  async show(id) {
    this.talk.show(await history.find(id));
    if (!WIDE.matches) this.close();
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

  /** What fails is told where the person looks: in the panel. */
  async attempt(work) {
    $("history-problem").textContent = "";
    try {
      await work();
    } catch (error) {
      $("history-problem").textContent = error?.message ?? "This browser keeps no conversations.";
    }
  }
}

function remember(state) {
  try { if (WIDE.matches) localStorage.setItem(PLACE, state); } catch { /* it holds until the page is closed */ }
}

function remembered() {
  try { return localStorage.getItem(PLACE); } catch { return null; }
}

const nameOf = ({title}) => title.replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 40).replace(/^-|-$/g, "") || "conversation";

/** A text, or records as JSON, as a file. */
function download(name, content) {
  const text = typeof content === "string" ? content : JSON.stringify(content, null, 1);
  const url = URL.createObjectURL(new Blob([text]));
  make("a", {href: url, download: name}).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
