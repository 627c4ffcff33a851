/** The conversation: a record that is replaced by its next state, and the one answer that runs.
 *
 * Whatever would drop what was said before (an edited question, another answer in the middle) begins a record of its
 * own, so that the history keeps both.
 */

import {answer, bare, withWholeCalls} from "./answering.js";
import {save} from "./history.js";
import {mediaOf, textOf} from "./record.js";
import {Refused} from "./server.js";
import {TalkView, keepingEnd} from "./talk_view.js";

const LONGEST_TITLE = 60;  // characters

const emptyRecord = () => ({id: newId(), title: "", changed: 0, messages: []});
const newId = () => `${Date.now().toString(36)}-${Math.random().toString(36).slice(2, 10)}`;

export class Talk {
  /** `working(on)` is told when an answer begins and ends, `changed()` when a conversation is kept or shown. */
  constructor({composer, models, settings, working, changed}) {
    Object.assign(this, {composer, models, settings, working, changed});
    this.record = emptyRecord();
    this.running = null;
    this.edited = null;  // the place of a question that is being mended
    this.unwanted = new Set();  // ids of what was deleted while an answer ran
    this.view = new TalkView({
      edit: (place) => this.edit(place),
      again: (place) => this.again(place),
      goOn: () => this.goOn(),
      turn: (place) => this.turn(place),
      answerCalls: (results) => this.answerCalls(results),
      place: () => ({context: this.models.context, isNamed: this.models.isOneOfSeveral}),
    });
  }

  /** Show another conversation, or an empty one. What runs is stopped. */
  show(record = emptyRecord()) {
    this.stop();
    this.running = this.edited = null;
    this.working(false);
    this.record = record;
    this.composer.set();
    this.view.draw(record.messages);
    scrollTo(0, document.documentElement.scrollHeight);
    this.changed();
  }

  /** Show an empty conversation, and keep nothing of this one. */
  forget() {
    this.unwanted.add(this.record.id);
    this.show();
  }

  stop() {
    this.running?.abort();
  }

  /** Ask what the composer holds. Where that is refused, it goes back there, to be mended. */
  async ask() {
    const asked = this.composer.message(), {edited} = this;
    if (!asked || this.running) return;
    const {text, media} = this.composer;
    const next = this.begun(edited ?? this.record.messages.length, [asked]);
    this.edited = null;
    this.composer.set();
    const refused = await this.run(next);
    if (!refused || !this.composer.isEmpty) return;
    this.composer.set(text, media);
    this.edited = edited;
  }

  /** Put a question back where it is written, to be asked otherwise. */
  edit(place) {
    const message = this.record.messages[place];
    this.edited = place;
    this.composer.set(textOf(message), mediaOf(message));
  }

  /** Leave a question as it was. Whether one was being mended. */
  leave() {
    if (this.edited === null) return false;
    this.edited = null;
    this.composer.set();
    return true;
  }

  /** Mend the last question. */
  editLast() {
    const place = this.record.messages.findLastIndex(({role}) => role === "user");
    if (place >= 0) this.edit(place);
  }

  /** Another answer to the same question. The one that was there is kept beside it, or in the history. */
  again(place) {
    const old = this.record.messages[place], isLast = place === this.record.messages.length - 1;
    const next = isLast ? {...this.record, messages: this.record.messages.slice(0, place)} : this.begun(place, []);
    return this.run(next, isLast ? {about: {versions: [...(old.about?.versions ?? []), unversioned(old)]}} : null);
  }

  /** Show another version of an answer: the oldest comes to the front, this one to the end. */
  turn(place) {
    const shown = this.record.messages[place], [next, ...others] = shown.about.versions;
    const about = {...next.about, versions: [...others, unversioned(shown)]};
    this.keep({...this.record, messages: this.record.messages.with(place, {...next, about})});
    this.view.draw(this.record.messages);
  }

  /** Write more of an answer that was stopped or cut. */
  goOn() {
    return this.run({...this.record, messages: this.record.messages.slice(0, -1)}, this.record.messages.at(-1));
  }

  /** Tell the model what its calls gave. */
  answerCalls(results) {
    const calls = this.record.messages.at(-1).tool_calls;
    const messages = results.map((content, place) => ({role: "tool", tool_call_id: calls[place].id, content}));
    return this.run(this.begun(this.record.messages.length, messages));
  }

  /** The record up to a place, and what is said then: another record where something would be lost. */
  begun(place, said) {
    const kept = this.record.messages.slice(0, place), messages = [...kept, ...said];
    const forks = place < this.record.messages.length;
    return {...this.record, id: forks ? newId() : this.record.id, title: titleOf(messages), messages};
  }

  /** Answer a record's last message. Whether that was refused: then the record stays as it was. */
  async run(next, begun = null) {
    if (this.running) return true;
    const before = this.record, own = this.running = new AbortController();
    this.record = next;
    this.view.draw(next.messages);
    const view = this.view.begin(this.models.isLoaded ? "" : "The model is being loaded…");
    this.working(true);
    const {message, error} = await this.receive(next, begun, own.signal, view);
    const isShown = this.running === own;
    if (isShown) { this.running = null; this.working(false); }
    if (!message) {
      if (isShown) { this.record = before; this.view.draw(before.messages); this.view.fail(error); }
      return isShown;
    }
    this.keep({...next, messages: [...next.messages, message]}, isShown);
    if (isShown) this.view.end(view, message, next.messages.length);
    if (isShown && error) this.view.fail(error);
    return false;
  }

  /** The message of an answer as far as it came, where any did; and why it is not whole, unless that was wanted. */
  async receive(next, begun, signal, view) {
    const sent = [...this.settings.messages, ...next.messages, ...(begun?.content ? [begun] : [])];
    const going = begun?.content ? {continue_final_message: true, add_generation_prompt: false} : {};
    const body = {model: this.models.chosen.id, ...this.settings.fields, ...going, messages: sent.map(bare)};
    let message = {}, drawing = 0;
    try {
      for await (message of answer(body, signal, begun)) {
        drawing ||= requestAnimationFrame(() => { drawing = 0; keepingEnd(() => view.grow(message)); });
      }
      if (!this.models.isLoaded) await this.models.refresh().catch(() => {});  // now there is more to tell of it
      return {message: withWholeCalls(message)};
    } catch (error) {
      const cut = withWholeCalls({...message, about: {...message.about, stopped: true}});
      if (error.name === "AbortError") return {message: cut};
      if (!(error instanceof Refused)) reportError(error);
      return {message: cut.content ? cut : null, error: withNames(error.message, sent)};
    } finally {
      cancelAnimationFrame(drawing);
    }
  }

  /** From now on this is the conversation, here and in the history. */
  keep(record, isShown = true) {
    const kept = {...record, changed: Date.now()};
    if (isShown) this.record = kept;
    if (!this.settings.keeps || this.unwanted.has(record.id)) return;
    save(kept).then(() => this.changed(), (error) => {
      this.view.fail(`This browser does not keep the conversation: ${error?.message ?? "no room"}`);
    });
  }
}

function unversioned({about, ...message}) {
  const {versions, ...others} = about ?? {};
  return {...message, about: others};
}

function titleOf(messages) {
  const first = messages.find(({role}) => role === "user");
  const line = first ? textOf(first).trim().split("\n", 1)[0] : "";
  return line.slice(0, LONGEST_TITLE) || first?.about?.names?.[0] || "Media";
}

/** An error that names a medium by its place in the request, naming it as people know it. */
function withNames(text, sent) {
  const places = /messages\[(\d+)\]\.content\[(\d+)\](?:\.(?:image|audio|video)_url(?:\.url)?)?/g;
  return text.replace(places, (path, message, part) => mediaOf(sent[message] ?? {})[part]?.name ?? path);
}
