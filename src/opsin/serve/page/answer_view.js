/** How an answer looks, while it grows and when it is whole: thoughts folded, Markdown, calls, and what it took. */

import {make} from "./dom.js";
import {Markdown} from "./markdown.js";

const FEW = 8;  // tokens: the speed of fewer says nothing

export class AnswerView {
  /** `place` tells {context, isNamed}: how many tokens fit, and whether answers tell their model. */
  constructor(place, note = "") {
    this.place = place;
    this.note = make("p", {className: "note", hidden: !note}, note);
    this.progress = make("progress", {max: 1, hidden: true, "aria-label": "Reading the question"});
    this.thoughts = foldable("thoughts", "Thoughts");
    this.said = make("div", {className: "said"});
    this.calls = make("div");
    this.footer = make("footer");
    this.article = make("article", {className: "model"}, make("h2", {className: "hidden"}, "Answer"),
                        this.note, this.progress, this.thoughts.node, this.said, this.calls, this.footer);
    this.markdown = new Markdown(this.said);
  }

  /** Show what there is of a message that grows. */
  grow({content, reasoning_content: thought, tool_calls: calls, about}) {
    this.article.classList.add("working");
    this.note.hidden ||= Boolean(about.progress || about.timings);
    this.showProgress(about.progress);
    this.showThoughts(thought, thought && !content && !calls ? "Thinking…" : "Thoughts");
    this.markdown.show(content);
    this.showCalls(calls);
    if (about.timings?.predicted_n) this.showFacts(about, []);
  }

  /** Show a whole message. `buttons` are what can be done with it. */
  finish(message, buttons) {
    const {content, reasoning_content: thought, tool_calls: calls, about} = message;
    this.article.classList.remove("working");
    this.progress.hidden = this.note.hidden = true;
    this.showThoughts(thought, "Thoughts");
    const nothing = content || calls ? "" : about?.stopped ? "*(stopped)*" : "*(no answer)*";
    this.markdown.show(content || nothing);
    this.showCalls(calls);
    this.showFacts(about, buttons);
  }

  showFacts(about, buttons) {
    this.footer.replaceChildren(...factsOf(about, this.place()).map((fact) => make("span", {}, fact)), ...buttons);
  }

  showProgress(told) {
    this.progress.hidden = !told || told.processed >= told.total;
    if (told) this.progress.value = told.processed / told.total;
  }

  showThoughts(text, title) {
    this.thoughts.node.hidden = !text;
    if (!text) return;
    if (this.thoughts.title.textContent !== title) this.thoughts.title.textContent = title;
    this.thoughts.inside.textContent = text;
  }

  showCalls(calls = []) {
    while (this.calls.childNodes.length < calls.length) {
      const made = foldable("call", "", "pre");
      made.node.open = true;
      this.calls.append(made.node);
    }
    for (const [place, {function: called}] of calls.entries()) {
      const [title, inside] = this.calls.childNodes[place].children;
      title.textContent = `Calls ${called.name}`;
      inside.textContent = pretty(called.arguments);
    }
  }
}

function foldable(className, text, tag = "div") {
  const title = make("summary", {}, text), inside = make(tag, {tabIndex: 0});
  return {node: make("details", {className}, title, inside), title, inside};
}

/** Arguments with a line for each, once they are whole. */
function pretty(text) {
  try { return JSON.stringify(JSON.parse(text), null, 2); } catch { return text; }
}

/** What an answer took and how it ended, in a few words each. A stopped one has no usage, but its last timings. */
function factsOf(about = {}, {context, isNamed}) {
  const {usage, timings, stopped, ended, model, asked} = about;
  const read = usage?.prompt_tokens ?? (timings ? timings.cache_n + timings.prompt_n : null);
  const written = usage?.completion_tokens ?? timings?.predicted_n;
  const known = timings?.cache_n ? ` (${count(timings.cache_n)} known)` : "";
  return [
    stopped ? "stopped" : ended === "length" && "cut: no more tokens were allowed",
    read !== null && `${count(read)} tokens read${known}, ${count(written)} written`,
    timings?.predicted_n >= FEW && `${speedOf(timings.predicted_per_second)} a second`,
    read !== null && context && `${count(read + written)} of ${count(context)} of the context`,
    ...(usage?.pictures ?? []).filter(({part}) => part.startsWith(asked)).map(changesOf),
    ...(usage?.sounds ?? []).filter(({part}) => part.startsWith(asked)).map(heardOf),
    isNamed && model,
  ].filter(Boolean);
}

const count = (number) => Number(number ?? 0).toLocaleString("en");
const speedOf = (speed = 0) => speed.toFixed(speed < 10 ? 1 : 0);

/** How a picture was really looked at, where that is not as it was sent. */
function changesOf({original, size, notes = []}) {
  const changed = original && size && String(original) !== String(size);
  return [changed && `${original.join(" × ")} looked at as ${size.join(" × ")}`, ...notes].filter(Boolean).join(", ");
}

/** How much of a sound was heard. */
function heardOf({seconds, notes = []}) {
  return [`${Number(seconds).toFixed(1)} s heard`, ...notes].join(", ");
}
