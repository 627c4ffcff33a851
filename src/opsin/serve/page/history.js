/** Records of conversations in this browser's IndexedDB, where no server sees them.
 *
 * A record's head, with all its words and none of its pictures, lies apart, so that lists and searches read little.
 */

import {textOf} from "./record.js";

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

/** What `work` asks of the stores, when all of it is written. Rejects where the browser has no room for it. */
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
  const found = heads.filter((head) => words.every((word) => head.words.includes(word)));
  return found.sort((one, other) => other.changed - one.changed);
}

function wordsOf({title, messages}) {
  return [title, ...messages.map(textOf)].join("\n").toLowerCase();
}
