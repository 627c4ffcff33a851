/** Conversations in this browser's IndexedDB, where no server sees them.
 *
 * A record: {id, title, changed, messages}. Its head, with all its words and none of its pictures, lies apart, so that
 * lists and searches read little.
 */

const STORES = ["heads", "records"];

let opening = null;

function database() {
  opening ??= new Promise((done, refuse) => {
    const asked = indexedDB.open("opsin", 1);
    asked.onupgradeneeded = () => STORES.forEach((name) => asked.result.createObjectStore(name, {keyPath: "id"}));
    asked.onsuccess = () => done(asked.result);
    asked.onerror = () => refuse(asked.error);
  });
  return opening;
}

/** What `work` asks of the stores, when all of it is written. Rejects where the browser has no room or keeps nothing. */
async function transact(mode, work) {
  const transaction = (await database()).transaction(STORES, mode);
  const asked = work(...STORES.map((name) => transaction.objectStore(name)));
  return new Promise((done, refuse) => {
    transaction.oncomplete = () => done(asked?.result);
    transaction.onabort = transaction.onerror = () => refuse(transaction.error);
  });
}

export function save(record) {
  const {id, title, changed} = record;
  return transact("readwrite", (heads, records) => {
    heads.put({id, title, changed, words: wordsOf(record)});
    records.put(record);
  });
}

export const find = (id) => transact("readonly", (heads, records) => records.get(id));
export const all = () => transact("readonly", (heads, records) => records.getAll());

export function remove(id) {
  return transact("readwrite", (heads, records) => { heads.delete(id); records.delete(id); });
}

export function clear() {
  return transact("readwrite", (heads, records) => { heads.clear(); records.clear(); });
}

/** Heads of those that have all these words, newest first. */
export async function search(text) {
  const words = text.toLowerCase().split(/\s+/);
  const heads = await transact("readonly", (heads) => heads.getAll());
  return heads.filter((head) => words.every((word) => head.words.includes(word))).sort((one, other) => other.changed - one.changed);
}

function wordsOf({title, messages}) {
  return [title, ...messages.map(textOf)].join("\n").toLowerCase();
}

/** The text of a message. */
export function textOf({content}) {
  return typeof content === "string" ? content : (content ?? []).map((part) => part.text ?? "").join("");
}

/** The pictures of a message. */
export function picturesOf({content, about}) {
  const parts = Array.isArray(content) ? content.filter((part) => part.type === "image_url") : [];
  return parts.map((part, place) => ({url: part.image_url.url, name: about?.names?.[place] ?? `picture ${place + 1}`}));
}

/** Whether somebody's file holds records that this page can show. */
export function isRecord(value) {
  const roles = ["user", "assistant", "tool"];
  return typeof value?.id === "string" && typeof value.title === "string" && Number.isFinite(value.changed) &&
    Array.isArray(value.messages) && value.messages.every((message) => roles.includes(message?.role) && isContent(message.content));
}

function isContent(content) {
  const isPart = (part) => typeof part?.text === "string" || /^data:image\//.test(part?.image_url?.url ?? "");
  return typeof content === "string" || (Array.isArray(content) && content.every(isPart));
}

/** A conversation as Markdown, without its pictures. */
export function asMarkdown({title, messages}) {
  const names = {user: "You", assistant: "Answer", tool: "Result"};
  return [`# ${title}`, ...messages.map((message) => `## ${names[message.role]}\n\n${markdownOf(message)}`)].join("\n\n") + "\n";
}

function markdownOf(message) {
  const pictures = picturesOf(message).map(({name}) => `(${name})`);
  const calls = (message.tool_calls ?? []).map((call) => "```json\n" + JSON.stringify(call.function) + "\n```");
  return [...pictures, textOf(message), ...calls].filter(Boolean).join("\n\n");
}
