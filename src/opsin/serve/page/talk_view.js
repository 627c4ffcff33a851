/** A conversation as articles. It knows how messages look, and calls `actions` for what people do with them. */

import {AnswerView} from "./answer_view.js";
import {$, button, copyButton, make} from "./dom.js";
import {mediaNode} from "./media.js";
import {mediaOf, textOf} from "./record.js";

export class TalkView {
  /** Actions: edit(place), again(place), goOn(), turn(place), answerCalls(results); and place(), for AnswerView. */
  constructor(actions) {
    this.actions = actions;
    this.questions = new WeakMap();  // their articles, by message: media are not decoded again
  }

  /** Show all of it anew. */
  draw(messages) {
    const hadFocus = $("talk").contains(document.activeElement);
    const articles = messages.map((message, place) => this.articleOf(message, place, place === messages.length - 1));
    const calls = messages.at(-1)?.tool_calls;
    $("talk").replaceChildren($("empty"), ...articles, ...(calls ? [this.resultForm(calls)] : []));
    $("empty").hidden = messages.length > 0;
    if (hadFocus) $("text").focus();
  }

  /** An answer that is about to come, with a note until it does. */
  begin(note) {
    const view = new AnswerView(this.actions.place, note);
    this.append(view.article);
    return view;
  }

  /** It has come, and is the last one. */
  end(view, message, place) {
    keepingEnd(() => {
      view.finish(message, this.answerButtons(message, place, true));
      if (message.tool_calls) $("talk").append(this.resultForm(message.tool_calls));
    });
  }

  append(node) {
    $("empty").hidden = true;
    $("talk").append(node);
    node.scrollIntoView({block: "end"});
  }

  /** Tell what went wrong. It stays until the conversation is shown anew. */
  fail(text) {
    this.append(make("div", {className: "error", role: "alert"}, text));
  }

  articleOf(message, place, isLast) {
    if (message.role === "user") {
      if (!this.questions.has(message)) this.questions.set(message, this.question(message, place));
      return this.questions.get(message);
    }
    if (message.role === "tool") return resultArticle(message);
    const view = new AnswerView(this.actions.place);
    view.finish(message, this.answerButtons(message, place, isLast));
    return view.article;
  }

  question(message, place) {
    const text = textOf(message), said = text ? [make("div", {className: "said"}, text)] : [];
    const buttons = [button("Edit", () => this.actions.edit(place)), ...(text ? [copyButton(() => text)] : [])];
    const media = mediaOf(message).map((medium) => mediaNode(medium));
    const inside = [make("h2", {className: "hidden"}, "You"), ...media, ...said, make("footer", {}, ...buttons)];
    return make("article", {className: "person"}, ...inside);
  }

  answerButtons({content, tool_calls: calls, about}, place, isLast) {
    const {actions} = this, versions = about?.versions ?? [];
    const cut = about?.stopped || about?.ended === "length";
    const name = `Other answer of ${versions.length + 1}`;
    const other = () => button("Other answer", () => actions.turn(place), {name});
    return [
      ...(content ? [copyButton(() => content)] : []),
      button("Ask again", () => actions.again(place)),
      ...(isLast && cut && content && !calls ? [button("Go on", () => actions.goOn())] : []),
      ...(isLast && versions.length ? [other()] : []),
    ];
  }

  /** Where a person plays the tools that the model called. */
  resultForm(calls) {
    const fields = calls.map(({function: called}) =>
      make("label", {}, make("span", {}, `Result of ${called.name}`), make("textarea", {rows: 2, required: true})));
    const about = {className: "results", "aria-label": "Results of tools"};
    const form = make("form", about, ...fields, make("button", {}, "Give results"));
    form.onsubmit = (event) => {
      event.preventDefault();
      this.actions.answerCalls([...form.querySelectorAll("textarea")].map((field) => field.value));
    };
    return form;
  }
}

function resultArticle({content}) {
  const inside = [make("summary", {}, "Result"), make("pre", {tabIndex: 0}, content)];
  return make("article", {className: "tool"}, make("details", {}, ...inside));
}

/** Show more. Who looks at the end still does so then; who reads further up is left there. */
export function keepingEnd(show) {
  const wasAtEnd = innerHeight + scrollY >= document.documentElement.scrollHeight - 80;
  show();
  if (wasAtEnd) scrollTo(0, document.documentElement.scrollHeight);
}
