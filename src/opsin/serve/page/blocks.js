/** Markdown into blocks, by lines. A block: {kind, from, to, ...}, lines `from` up to `to`. It knows no nodes.
 *
 * It reads what models write: headings with #, fences, lists, quotes, GitHub's tables, rules, formulas. Left out are
 * indented code, underlined headings, HTML and definitions of links: all of these stay the text that they are.
 */

const DEEPEST = 12;  // quotes and lists within each other; what is deeper stays text
const MOST_LINES = 60;  // of a formula
const FENCE = /^( {0,3})(`{3,}|~{3,})([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?=\s|$)/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])(?: +|$)/;
const FORMULA = /^\s*(\$\$|\\\[)/;
const DELIMITER = /^\s*\|?(?:\s*:?-+:?\s*\|)*\s*:?-+:?\s*\|?\s*$/;

export function blocksOf(lines, depth = 0) {
  const found = [];
  for (let at = 0; at < lines.length;) {
    if (!lines[at].trim()) { at += 1; continue; }
    const block = readBlock(lines, at, depth) ?? readParagraph(lines, at, depth);
    found.push({from: at, ...block});
    at = block.to;
  }
  return found;
}

function readBlock(lines, at, depth) {
  const marked = readFence(lines, at) ?? readHeading(lines, at) ?? readRule(lines, at);
  const flat = marked ?? readFormula(lines, at) ?? readTable(lines, at);
  if (flat || depth >= DEEPEST) return flat;
  return readQuote(lines, at, depth) ?? readList(lines, at, depth);
}

/** A fence that nobody has closed yet goes to the end: that is how it looks while it is being written. */
function readFence(lines, at) {
  const [, indent, fence, info] = FENCE.exec(lines[at]) ?? [];
  if (!fence) return null;
  const closing = new RegExp(`^ {0,3}${fence[0]}{${fence.length},}\\s*$`);
  let to = at + 1;
  while (to < lines.length && !closing.test(lines[to])) to += 1;
  const text = lines.slice(at + 1, to).map((line) => withoutIndent(line, indent.length)).join("\n");
  return {kind: "code", language: info.trim().split(/\s/, 1)[0], text, to: Math.min(to + 1, lines.length)};
}

/** A formula on lines of its own, between $$ and $$, or \[ and \]. One that is not closed is text. */
function readFormula(lines, at) {
  const [begin, mark] = FORMULA.exec(lines[at]) ?? [];
  if (!mark) return null;
  const end = mark === "$$" ? "$$" : "\\]";
  for (let to = at; to < Math.min(lines.length, at + MOST_LINES); to += 1) {
    const line = to === at ? lines[to].slice(begin.length) : lines[to], closed = line.indexOf(end);
    if (closed < 0) continue;
    if (/[^\s.,;:]/.test(line.slice(closed + end.length))) return null;  // more follows: it stands in a text
    const before = lines.slice(at, to).map((one, place) => place ? one : one.slice(begin.length));
    return {kind: "formula", text: [...before, line.slice(0, closed)].join("\n"), to: to + 1};
  }
  return null;
}

function readHeading(lines, at) {
  const [head, marks] = HEADING.exec(lines[at]) ?? [];
  if (!marks) return null;
  const text = lines[at].slice(head.length).trim().replace(/(?:^| )#+$/, "");
  return {kind: "heading", level: marks.length, text, to: at + 1};
}

function readRule(lines, at) {
  return /^([-*_])\1{2,}$/.test(lines[at].replace(/\s/g, "")) ? {kind: "rule", to: at + 1} : null;
}

function readTable(lines, at) {
  if (!lines[at].includes("|") || !DELIMITER.test(lines[at + 1] ?? "")) return null;
  const head = cells(lines[at]), sides = cells(lines[at + 1]).map(sideOf);
  if (head.length !== sides.length) return null;
  let to = at + 2;
  while (to < lines.length && lines[to].includes("|")) to += 1;
  const rows = lines.slice(at + 2, to).map((line) => head.map((_, column) => cells(line)[column] ?? ""));
  return {kind: "table", head, sides, rows, to};
}

function cells(line) {
  const inner = line.trim().replace(/^\|/, "").replace(/(?<!\\)\|$/, "");
  return inner.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function sideOf(delimiter) {
  const [left, right] = [delimiter.startsWith(":"), delimiter.endsWith(":")];
  return right ? (left ? "center" : "right") : "left";
}

function readQuote(lines, at, depth) {
  let to = at;
  while (to < lines.length && QUOTE.test(lines[to])) to += 1;
  if (to === at) return null;
  return {kind: "quote", blocks: blocksOf(lines.slice(at, to).map((line) => line.replace(QUOTE, "")), depth + 1), to};
}

/** Items of one kind. What is indented by two or more belongs to the item, as models indent by less than is asked. */
function readList(lines, at, depth) {
  const first = ITEM.exec(lines[at]);
  if (!first) return null;
  const kind = first[2].slice(-1), items = [];
  let to = at, loose = false;
  for (let item = first; item && item[2].slice(-1) === kind && item[1].length < first[1].length + 2;) {
    const begin = to;
    to = endOfItem(lines, begin, item);
    const width = item[0].length, more = lines.slice(begin + 1, to).map((line) => withoutIndent(line, width));
    items.push(blocksOf([lines[begin].slice(width), ...more], depth + 1));
    const next = skipBlank(lines, to);
    item = ITEM.exec(lines[next] ?? "");
    if (item && /^([-*_])\1{2,}$/.test(lines[next].replace(/\s/g, ""))) item = null;
    if (item && item[2].slice(-1) === kind) { loose ||= next > to; to = next; }
  }
  const start = kind === "." || kind === ")" ? Number.parseInt(first[2], 10) : null;
  return {kind: "list", start, loose, items, to};
}

function endOfItem(lines, begin, item) {
  const least = Math.min(item[0].length, item[1].length + 2);
  let to = begin + 1;
  for (;;) {
    const next = skipBlank(lines, to);
    if (next >= lines.length || indentOf(lines[next]) < least) return to;
    to = next + 1;
  }
}

function readParagraph(lines, at, depth) {
  let to = at + 1;
  while (to < lines.length && lines[to].trim() && !interrupts(lines, to, depth)) to += 1;
  return {kind: "paragraph", text: lines.slice(at, to).map((line) => line.trim()).join("\n"), to};
}

/** Whether a block begins here though no empty line stands before it. "1986. A good year" is no list. */
function interrupts(lines, at, depth) {
  if (readHeading(lines, at) || readRule(lines, at) || FENCE.test(lines[at]) || readTable(lines, at)) return true;
  if (readFormula(lines, at)) return true;
  if (depth >= DEEPEST) return false;
  const item = ITEM.exec(lines[at]);
  return QUOTE.test(lines[at]) || (item !== null && (!/\d/.test(item[2]) || /^1[.)]$/.test(item[2])));
}

function skipBlank(lines, at) {
  while (at < lines.length && !lines[at].trim()) at += 1;
  return at;
}

const indentOf = (line) => line.length - line.trimStart().length;
const withoutIndent = (line, most) => line.slice(Math.min(indentOf(line), most));
