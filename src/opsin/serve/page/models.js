/** Which models there are, and what the chosen one can do. */

import {$, make} from "./dom.js";
import {KINDS} from "./record.js";
import {Refused, read} from "./server.js";

const PLACE = "opsin.model";

export class Models {
  constructor() {
    this.entries = [];
    this.defaults = {};  // of sampling, by llama-server's names
  }

  /** The one that is asked: what the server tells of it, and nothing while it tells nothing. */
  get chosen() {
    return this.entries.find(({id}) => id === $("models").value) ?? this.entries[0] ?? {};
  }

  get isOneOfSeveral() {
    return this.entries.length > 1;
  }

  /** Of several, one may have to be loaded first. */
  get isLoaded() {
    return (this.chosen.status?.value ?? "loaded") === "loaded";
  }

  /** Whether it takes pictures ("image"), sounds ("audio") or videos. One of which nothing is known yet may see. */
  takes(kind) {
    const known = this.chosen.architecture?.input_modalities, sense = kind === "video" ? "image" : kind;
    return known?.includes(sense) ?? sense === "image";
  }

  /** Some only make embeddings. */
  get writes() {
    return writes(this.chosen);
  }

  get context() {
    return this.chosen.meta?.n_ctx ?? null;
  }

  /** Ask until the server tells. Whether it does, and does not refuse for good. */
  async load() {
    for (;;) {
      try {
        await this.refresh();
        return true;
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        const loads = error.status === 503;
        $("model").textContent = loads ? "the model is being loaded…" : error.message;
        if (error.status && !loads) return false;
        await new Promise((done) => setTimeout(done, 1000));
      }
    }
  }

  /** Ask what there is now. Throws Refused. */
  async refresh() {
    const wanted = $("models").value || remembered();
    const {data} = await read("v1/models"), writing = data.filter(writes);
    this.entries = writing.length ? writing : data;
    const optionOf = ({id, status}) => make("option", {value: id}, id + noteOf(status));
    $("models").replaceChildren(...this.entries.map(optionOf));
    if (this.entries.some(({id}) => id === wanted)) $("models").value = wanted;
    $("models").hidden = !this.isOneOfSeveral;
    await this.describe();
  }

  /** Show what is known of the chosen one. */
  async describe() {
    const {id = ""} = this.chosen;
    const kinds = Object.keys(KINDS).filter((kind) => this.takes(kind)), sees = this.takes("image");
    $("model").textContent = (this.isOneOfSeveral ? "" : id) + (kinds.length ? "" : " (text only)");
    $("choose").hidden = !kinds.length;
    $("choose-name").textContent = sees ? this.takes("audio") ? "File" : "Picture" : "Sound";
    $("file").accept = kinds.map((kind) => `${kind}/*`).join();
    $("camera").hidden = !sees;
    $("record").hidden = !this.takes("audio");
    const asked = `props?model=${encodeURIComponent(id)}&autoload=false`;  // to look at one does not load it
    const told = await read(asked).catch(() => null);
    this.defaults = told?.default_generation_settings?.params ?? {};
  }

  /** The person has chosen another one. */
  remember() {
    try { localStorage.setItem(PLACE, $("models").value); } catch { /* it holds until the page is closed */ }
  }
}

function writes({architecture}) {
  return architecture?.output_modalities?.includes("text") ?? true;
}

function remembered() {
  try { return localStorage.getItem(PLACE); } catch { return null; }
}

function noteOf(status) {
  if (!status) return "";
  return status.failed ? " (cannot be loaded)" : status.value === "unloaded" ? "" : ` (${status.value})`;
}
