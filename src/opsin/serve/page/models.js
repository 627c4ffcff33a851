/** Which models there are, and what the chosen one can do. */

import {$, make} from "./dom.js";
import {Refused, read} from "./server.js";

export class Models {
  constructor() {
    this.entries = [];
    this.defaults = {};  // of sampling, by llama-server's names
  }

  /** The one that is asked: what the server tells of it, and nothing while it tells nothing. */
  get chosen() {
    return this.entries.find(({id}) => id === $("models").value) ?? this.entries[0] ?? {};
  }

  /** A model of which nothing is known yet may see. */
  get sees() {
    return this.chosen.architecture?.input_modalities?.includes("image") ?? true;
  }

  get context() {
    return this.chosen.meta?.n_ctx ?? null;
  }

  /** Ask until the server tells. Resolves when the models are shown, or when it refuses for good. */
  async load() {
    for (;;) {
      try {
        this.entries = (await read("v1/models")).data;
        break;
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        const loads = error.status === 503;
        $("model").textContent = loads ? "the model is being loaded…" : error.message;
        if (error.status && !loads) return false;
        await new Promise((done) => setTimeout(done, 1000));
      }
    }
    $("models").replaceChildren(...this.entries.map(({id}) => make("option", {value: id}, id)));
    $("models").hidden = this.entries.length < 2;
    await this.describe();
    return true;
  }

  /** Show what is known of the chosen one. */
  async describe() {
    const {id} = this.chosen, one = this.entries.length < 2;
    $("model").textContent = (one ? id : "") + (this.sees ? "" : " (text only)");
    for (const name of ["choose", "camera"]) $(name).hidden = !this.sees;
    const told = await read(one ? "props" : `props?model=${encodeURIComponent(id)}`).catch(() => null);
    this.defaults = told?.default_generation_settings?.params ?? {};
  }
}
