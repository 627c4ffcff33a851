/** Blocks and spans as nodes. An answer that grows keeps the nodes of the blocks that stay as they were. */

import {blocksOf} from "./blocks.js";
import {coloured} from "./code.js";
import {copyButton, make} from "./dom.js";
import {formulaNode} from "./formula.js";
import {spansOf} from "./spans.js";

const MOST_COLOURED = 50_000;  // characters of code: a growing answer is shown anew many times

/** Shows a text in an element, again and again as it grows. */
export class Markdown {
  constructor(root) {
    this.root = root;
    this.sources = [];
  }

  show(text) {
    const lines = text.replaceAll("\r\n", "\n").replaceAll("\t", "    ").split("\n");
    const blocks = blocksOf(lines), sources = blocks.map(({from, to}) => lines.slice(from, to).join("\n"));
    let same = 0;
    while (same < sources.length && sources[same] === this.sources[same]) same += 1;
    while (this.root.childNodes.length > same) this.root.lastChild.remove();
    this.root.append(...blocks.slice(same).map(nodeOf));
    this.sources = sources;
  }
}

const MAKERS = {
  paragraph: ({text}) => make("p", {}, ...nodesOf(text)),
  heading: ({level, text}) => make(`h${Math.min(6, level + 2)}`, {}, ...nodesOf(text)),  // two stand above on the page
  rule: () => make("hr"),
  quote: ({blocks}) => make("blockquote", {}, ...blocks.map(nodeOf)),
  list: listOf,
  code: codeOf,
  formula: ({text}) => make("div", {className: "formula", ...scrolling("Formula")}, formulaNode(text, true)),
  table: tableOf,
};

const nodeOf = (block) => MAKERS[block.kind](block);
const nodesOf = (text) => spansOf(text).map(spanOf);

function spanOf(span) {
  if (span.kind === "text") return document.createTextNode(span.text);
  if (span.kind === "break") return make("br");
  if (span.kind === "code") return make("code", {}, span.text);
  if (span.kind === "formula") return formulaNode(span.text, span.isBlock);
  const inside = span.spans.map(spanOf);
  if (span.kind === "link") return make("a", {href: span.url, target: "_blank", rel: "noopener noreferrer"}, ...inside);
  return make(span.kind, {}, ...inside);
}

function listOf({start, loose, items}) {
  const made = items.map((blocks) => make("li", {}, ...blocks.flatMap((block) => itemNodes(block, loose))));
  return start === null ? make("ul", {}, ...made) : make("ol", {start}, ...made);
}

/** Where no empty line stands between items, their texts are no paragraphs. Tasks get their box. */
function itemNodes(block, loose) {
  if (block.kind !== "paragraph") return [nodeOf(block)];
  const text = block.text.replace(/^\[ \] /, "☐ ").replace(/^\[[xX]\] /, "☑ ");
  return loose ? [nodeOf({...block, text})] : nodesOf(text);
}

/** What may be wider than the page scrolls by itself, and takes the keyboard for it. */
const scrolling = (name) => ({tabIndex: 0, role: "region", "aria-label": name});

function framed(kind, label, text, inside) {
  const head = make("figcaption", {}, make("span", {}, label), copyButton(text, `Copy the ${kind}`));
  return make("figure", {className: kind}, head, inside);
}

function codeOf({language, text}) {
  const spans = text.length > MOST_COLOURED ? [{kind: "text", text}] : coloured(text, language);
  const code = spans.map((span) => span.kind === "text" ? span.text : make("span", {className: span.kind}, span.text));
  const shown = make("pre", scrolling(language ? `Code in ${language}` : "Code"), make("code", {}, ...code));
  return framed("code", language || "text", () => text, shown);
}

function tableOf({head, sides, rows}) {
  const cell = (tag, text, column) => make(tag, {className: sides[column]}, ...nodesOf(text));
  const row = (tag, cells) => make("tr", {}, ...cells.map((text, column) => cell(tag, text, column)));
  const body = make("tbody", {}, ...rows.map((cells) => row("td", cells)));
  const table = make("table", {}, make("thead", {}, row("th", head)), body);
  const asTabs = () => [head, ...rows].map((cells) => cells.join("\t")).join("\n");  // as spreadsheets take them
  const label = rows.length === 1 ? "1 row" : `${rows.length} rows`;
  return framed("table", label, asTabs, make("div", {className: "wide", ...scrolling("Table")}, table));
}
