/** What the page asks of the server. A key stays in memory alone, until the page is closed. */

import {$} from "./dom.js";

let key = "";

const headers = () => ({"Content-Type": "application/json", ...(key && {Authorization: `Bearer ${key}`})});

/** What a person reads of a request that was refused; and the field that was wrong, by its path. */
export class Refused extends Error {
  constructor(message, status = 0, field = "") {
    super(message);
    Object.assign(this, {status, field});
  }
}

/** A response. Where the server wants a key, the person is asked for it, as often as it is wrong. */
export async function call(path, options = {}) {
  for (;;) {
    const response = await fetch(path, {...options, headers: headers()});
    if (response.status !== 401 || !(await askForKey())) return response;
  }
}

function askForKey() {
  const dialog = $("locked");
  $("key").value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((done) => dialog.addEventListener("close", () => {
    if (dialog.returnValue) key = $("key").value.trim();
    $("key").value = "";
    done(Boolean(dialog.returnValue && key));
  }, {once: true}));
}

/** The JSON of an address. Throws Refused. */
export async function read(path) {
  const response = await call(path).catch(() => { throw new Refused("The server does not answer."); });
  if (!response.ok) throw await refusal(response);
  return response.json();
}

async function refusal(response) {
  const told = await response.json().catch(() => null);
  const {status, statusText} = response;
  return new Refused(told?.error?.message ?? `The server answers ${status} ${statusText}`, status, told?.error?.param);
}

/** The values of a streamed answer. Throws Refused, and AbortError when `signal` says so. */
export async function* stream(path, body, signal) {
  const response = await call(path, {method: "POST", signal, body: JSON.stringify(body)}).catch(unreached);
  if (!response.ok) throw await refusal(response);
  const reader = response.body.getReader(), decoder = new TextDecoder();
  for (let rest = ""; ;) {
    const {done, value} = await reader.read().catch(unreached);
    if (done) return;
    const lines = (rest + decoder.decode(value, {stream: true})).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data: ") || line === "data: [DONE]") continue;
      const told = JSON.parse(line.slice(6));
      if (told.error) throw new Refused(told.error.message, told.error.code);
      yield told;
    }
  }
}

function unreached(error) {
  throw error.name === "AbortError" ? error : new Refused(`The server does not answer: ${error.message}`);
}
