/** Markdown within a block, into spans: {kind: text | code | formula | break | strong | em | del | link, ...}, without
 * nodes.
 *
 * One pass over the text and one over its marks, whatever stands there: nothing is looked for twice.
 */

const DEEPEST = 24;  // marks within each other; what is deeper loses them
const CODE = /`+/y;
const MARKS = /\*+|_+|~~/y;
const LINKED = /(?:https?:\/\/|mailto:)[^\s<>()]{1,2000}(?:\([^\s<>()]{0,500}\)[^\s<>()]{0,500})?/.source;
const TARGET = new RegExp(`\\(\\s{0,9}<?(${LINKED})>?(?:\\s{1,9}"[^"]{0,300}")?\\s{0,9}\\)`, "y");
const ADDRESS = /https?:\/\/[^\s<>"'`*|]{1,2000}/y;
const BREAK = /<br ?\/?>|\n/iy;
const PLAIN = /[^\\`*_~[\]!<h\n$]+/y;
const ESCAPED = new Set("\\`*_{}#+-.!|<>~$");  // not brackets: \( and \[ begin formulas
/** Formulas by what begins them. Of a dollar that says a price none begins: blanks and digits tell. */
const FORMULAS = [
  {begin: "\\(", whole: /\\\(((?:[^\\]|\\(?!\))){1,2000}?)\\\)/y},
  {begin: "\\[", whole: /\\\[((?:[^\\]|\\(?!\])){1,2000}?)\\\]/y, isBlock: true},
  {begin: "$$", whole: /\$\$((?:[^$\\]|\\[^]){1,2000})\$\$/y, isBlock: true},
  {begin: "$", whole: /\$(?![\s$])((?:[^$\\\n`]|\\[^\n]){1,500}(?<!\s))\$(?!\d)/y},
];
const WORD = /[\p{L}\p{N}]/u;

export function spansOf(text) {
  const reader = {text, at: 0, tokens: [], brackets: [], unclosed: new Set()};
  while (reader.at < text.length) step(reader);
  return nest(reader.tokens);
}

function step(reader) {
  const here = reader.text[reader.at];
  if (here === "`") return readCode(reader);
  if (here === "[" || reader.text.startsWith("![", reader.at)) return openBracket(reader, here === "[" ? 1 : 2);
  if (here === "]") return closeBracket(reader);
  if ((here === "\\" || here === "$") && readFormula(reader)) return null;
  if (here === "\\" && ESCAPED.has(reader.text[reader.at + 1])) return say(reader, 2, reader.text[reader.at + 1]);
  const found = readMarks(reader) ?? readBreak(reader) ?? readAddress(reader);
  return found ?? say(reader, Math.max(1, match(PLAIN, reader)?.[0].length ?? 1));
}

function match(pattern, {text, at}) {
  pattern.lastIndex = at;
  return pattern.exec(text);
}

function say(reader, length, text = reader.text.slice(reader.at, reader.at + length)) {
  reader.tokens.push({kind: "text", text});
  reader.at += length;
}

/** Code ends at a run of as many ticks. A length that no run ahead has is remembered. */
function readCode(reader) {
  const [ticks] = match(CODE, reader), begin = reader.at + ticks.length;
  const end = reader.unclosed.has(ticks.length) ? -1 : endOfCode(reader.text, begin, ticks.length);
  if (end < 0) { reader.unclosed.add(ticks.length); return say(reader, ticks.length); }
  const inside = reader.text.slice(begin, end).replaceAll("\n", " ");
  const text = /^ .*[^ ].* $/.test(inside) ? inside.slice(1, -1) : inside;
  reader.tokens.push({kind: "code", text});
  reader.at = end + ticks.length;
}

/** Whether a formula stands here. */
function readFormula(reader) {
  const known = FORMULAS.find(({begin}) => reader.text.startsWith(begin, reader.at));
  const found = known && match(known.whole, reader);
  if (!found) return false;
  reader.tokens.push({kind: "formula", text: found[1], isBlock: Boolean(known.isBlock)});
  reader.at += found[0].length;
  return true;
}

function endOfCode(text, at, length) {
  for (let begin = text.indexOf("`", at); begin >= 0; begin = text.indexOf("`", at)) {
    CODE.lastIndex = begin;
    at = begin + CODE.exec(text)[0].length;
    if (at - begin === length) return begin;
  }
  return -1;
}

/** Stars stand at words, not between blanks; an underscore within a word, as in snake_case, is none. */
function readMarks(reader) {
  const found = match(MARKS, reader);
  if (!found) return null;
  const [marks] = found, end = reader.at + marks.length;
  const before = reader.text[reader.at - 1] ?? " ", after = reader.text[end] ?? " ";
  const within = marks[0] === "_" && WORD.test(before) && WORD.test(after);
  const opens = /\S/.test(after) && !within, closes = /\S/.test(before) && !within;
  reader.tokens.push({kind: "marks", mark: marks[0], count: marks.length, opens, closes, begun: [], ended: []});
  reader.at = end;
  return true;
}

function readBreak(reader) {
  const found = match(BREAK, reader);
  if (!found) return null;
  reader.tokens.push({kind: "break"});
  reader.at += found[0].length;
  return true;
}

/** An address as it stands. The point that ends a sentence is not of it. */
function readAddress(reader) {
  if (WORD.test(reader.text[reader.at - 1] ?? " ")) return null;
  const found = match(ADDRESS, reader);
  if (!found) return null;
  let url = found[0].replace(/[.,;:!?\]]+$/, "");
  if (url.endsWith(")") && !url.includes("(")) url = url.slice(0, -1);
  reader.tokens.push({kind: "link", url, spans: [{kind: "text", text: url}]});
  reader.at += url.length;
  return true;
}

function openBracket(reader, length) {
  reader.brackets.push(reader.tokens.length);
  say(reader, length);
}

/** `[text](address)`. A picture is a link to itself: the page loads nothing from elsewhere. */
function closeBracket(reader) {
  const opened = reader.brackets.pop();
  reader.at += 1;
  const found = opened === undefined ? null : match(TARGET, reader);
  if (!found) { reader.tokens.push({kind: "text", text: "]"}); return; }
  const inside = reader.tokens.splice(opened).slice(1);
  const spans = inside.length ? nest(inside) : [{kind: "text", text: found[1]}];
  reader.tokens.push({kind: "link", url: found[1], spans});
  reader.brackets = [];  // links do not stand in links
  reader.at += found[0].length;
}

/** Pairs of marks become spans around what stands between them; marks without a fellow are text. */
function nest(tokens) {
  pair(tokens);
  const root = [], open = [root];
  const put = (span) => open.at(-1).push(span);
  for (const token of tokens) {
    if (token.kind !== "marks") { put(token); continue; }
    for (let left = token.ended.length; left; left -= 1) open.pop();
    if (token.count) put({kind: "text", text: token.mark.repeat(token.count)});
    for (const kind of token.begun.toReversed()) {
      const spans = [];
      if (open.length < DEEPEST) put({kind, spans});
      open.push(open.length < DEEPEST ? spans : open.at(-1));
    }
  }
  return root;
}

function pair(tokens) {
  const waiting = {"*": [], "_": [], "~": []};
  for (const [place, token] of tokens.entries()) {
    if (token.kind !== "marks") continue;
    if (token.closes) while (token.count && closeOne(waiting, token));
    if (token.opens && token.count) waiting[token.mark].push({place, token});
  }
}

/** Whether the nearest marks of this kind and these became a pair. Others that were begun between them are text. */
function closeOne(waiting, token) {
  const same = waiting[token.mark], opener = same.at(-1);
  if (!opener) return false;
  const width = Math.min(2, opener.token.count, token.count);
  for (const others of Object.values(waiting)) while (others.at(-1)?.place > opener.place) others.pop();
  const kind = token.mark === "~" ? "del" : width === 2 ? "strong" : "em";
  opener.token.begun.push(kind);
  token.ended.push(kind);
  opener.token.count -= width;
  token.count -= width;
  if (!opener.token.count) same.pop();
  return true;
}
