/** Blocks and spans as nodes. An answer that grows keeps the nodes of the blocks that stay as they were. */

import {blocksOf} from "./blocks.js";
import {copyButton, make} from "./dom.js";
import {spansOf} from "./spans.js";

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
  heading: ({level, text}) => make(`h${Math.min(6, level + 2)}`, {}, ...nodesOf(text)),  // the page has two of its own above
  rule: () => make("hr"),
  quote: ({blocks}) => make("blockquote", {}, ...blocks.map(nodeOf)),
  list: listOf,
  code: codeOf,
  table: tableOf,
};

const nodeOf = (block) => MAKERS[block.kind](block);
const nodesOf = (text) => spansOf(text).map(spanOf);

function spanOf(span) {
  if (span.kind === "text") return document.createTextNode(span.text);
  if (span.kind === "break") return make("br");
  if (span.kind === "code") return make("code", {}, span.text);
  const inside = span.spans.map(spanOf);
  if (span.kind === "link") return make("a", {href: span.url, target: "_blank", rel: "noopener noreferrer"}, ...inside);
  return make(span.kind, {}, ...inside);
}

function listOf({start, loose, items}) {
  const made = items.map((blocks) => make("li", {}, ...blocks.flatMap((block) => itemNodes(block, loose))));
  return start === null ? make("ul", {}, ...made) : make("ol", {start}, ...made);
}

/** Where no empty line stands between items, their texts are no paragraphs. */
function itemNodes(block, loose) {
  return loose || block.kind !== "paragraph" ? [nodeOf(block)] : nodesOf(block.text);
}

/** What may be wider than the page scrolls by itself, and takes the keyboard for it. */
function framed(kind, label, text, inside) {
  const head = make("figcaption", {}, make("span", {}, label), copyButton(text, `Copy the ${kind}`));
  return make("figure", {className: kind}, head, inside);
}

function codeOf({language, text}) {
  const shown = make("pre", {tabIndex: 0, "aria-label": language ? `Code in ${language}` : "Code", role: "region"}, make("code", {}, text));
  return framed("code", language || "text", () => text, shown);
}

function tableOf({head, sides, rows}) {
  const row = (tag, cells) => make("tr", {}, ...cells.map((text, column) => make(tag, {className: sides[column]}, ...nodesOf(text))));
  const table = make("table", {}, make("thead", {}, row("th", head)), make("tbody", {}, ...rows.map((cells) => row("td", cells))));
  const asTabs = () => [head, ...rows].map((cells) => cells.join("\t")).join("\n");  // as spreadsheets take them
  return framed("table", `${rows.length} ${rows.length === 1 ? "row" : "rows"}`, asTabs, make("div", {className: "wide", tabIndex: 0, role: "region", "aria-label": "Table"}, table));
}
