/** Code into spans, by its language: {kind: text | comment | string | number | word, text}. It knows no nodes.
 *
 * One pass, and no grammar: what looks alike in a family of languages is coloured alike. What is not known stays text.
 */

const C_LIKE = {comment: /\/\/[^\n]*|\/\*[^]*?(?:\*\/|$)/, string: /"(?:[^"\\\n]|\\.)*"?|'(?:[^'\\\n]|\\.)*'?/};
const SCRIPT = {...C_LIKE, string: RegExp(`${C_LIKE.string.source}|\`(?:[^\`\\\\]|\\\\[^])*\`?`)};
const HASHED = {comment: /#[^\n]*/, string: C_LIKE.string};
const PYTHON = {...HASHED, string: RegExp(`"""[^]*?(?:"""|$)|'''[^]*?(?:'''|$)|${C_LIKE.string.source}`)};
const DASHED = {comment: /--[^\n]*|\/\*[^]*?(?:\*\/|$)/, string: /'(?:[^'])*'?|"[^"\n]*"?/, anyCase: true};
const MARKUP = {comment: /<!--[^]*?(?:-->|$)/, string: /"[^"\n]*"?/, word: /<\/?[a-zA-Z][\w:-]*|\/?>/};
const STYLE = {comment: /\/\*[^]*?(?:\*\/|$)/, string: C_LIKE.string, word: /@[\w-]+|[\w-]{1,60}(?=\s{0,9}:)/};

const WORDS = {
  c: "auto bool break case char class const continue default do double else enum extern false float for goto if " +
    "inline int long namespace new nullptr private protected public return short signed sizeof static struct switch " +
    "template this true try catch throw typedef union unsigned using virtual void volatile while NULL",
  java: "abstract boolean break byte case catch char class const continue default do double else enum extends final " +
    "finally float for fun if implements import in instanceof int interface is long new null object override package " +
    "private protected public return sealed short static string super switch synchronized this throw throws true " +
    "false try using val var void when while async await namespace",
  script: "as async await break case catch class const continue default delete do else enum export extends false " +
    "finally for from function if implements import in instanceof interface let new null of private public readonly " +
    "return static super switch this throw true try type typeof undefined var void while yield",
  go: "break case chan const continue default defer else fallthrough false for func go goto if import interface map " +
    "nil package range return select struct switch true type var",
  rust: "as async await break const continue crate dyn else enum extern false fn for if impl in let loop match mod " +
    "move mut pub ref return self Self static struct super trait true type unsafe use where while",
  python: "and as assert async await break case class continue def del elif else except False finally for from " +
    "global if import in is lambda match None nonlocal not or pass raise return self True try while with yield",
  ruby: "alias and begin break case class def do else elsif end ensure false for if in module next nil not or redo " +
    "rescue return self super then true unless until when while yield require",
  shell: "case do done elif else esac export fi for function if in local return set then until while echo cd sudo",
  sql: "add all alter and as asc between by case check column constraint create delete desc distinct drop else end " +
    "exists foreign from full group having in index inner insert into is join key left like limit not null on or " +
    "order outer primary references right select set table then union unique update values view when where with",
  data: "true false null yes no on off",
};

const FAMILIES = [
  ["c cpp c++ cc h hpp objc cuda glsl", C_LIKE, WORDS.c],
  ["java kotlin kt cs csharp c# scala swift dart php", C_LIKE, WORDS.java],
  ["js javascript mjs jsx ts typescript tsx", SCRIPT, WORDS.script],
  ["go golang", SCRIPT, WORDS.go],
  ["rust rs", {...C_LIKE, string: /"(?:[^"\\]|\\[^])*"?|'(?:[^'\\\n]|\\.)'/}, WORDS.rust],
  ["py python python3 pyi", PYTHON, WORDS.python],
  ["rb ruby", HASHED, WORDS.ruby],
  ["sh bash shell zsh console dockerfile makefile", HASHED, WORDS.shell],
  ["sql mysql postgresql sqlite", DASHED, WORDS.sql],
  ["json jsonc json5", C_LIKE, WORDS.data],
  ["yaml yml toml ini", HASHED, WORDS.data],
  ["html xml svg vue", MARKUP, ""],
  ["css scss", STYLE, ""],
];

const LANGUAGES = new Map(FAMILIES.flatMap(([names, how, words]) =>
  names.split(" ").map((name) => [name, {how, words}])));
const READERS = new Map();  // made when a language is first shown

const NUMBER = /\b(?:0[xXbBoO][\da-fA-F_]+|\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)?)\b/;
const KINDS = ["comment", "string", "word", "number", "text"];

/** The spans of a text, which are together that text. */
export function coloured(text, language) {
  const reader = readerOf(language.toLowerCase());
  if (!reader) return [{kind: "text", text}];
  const found = [];
  for (const {0: piece, groups} of text.matchAll(reader)) {
    const kind = KINDS.find((name) => groups[name] !== undefined) ?? "text";
    if (kind === "text" && found.at(-1)?.kind === "text") found.at(-1).text += piece;
    else found.push({kind, text: piece});
  }
  return found;
}

/** One expression that matches any text from where the last piece ended. */
function readerOf(language) {
  if (!LANGUAGES.has(language)) return null;
  if (!READERS.has(language)) READERS.set(language, madeFor(LANGUAGES.get(language)));
  return READERS.get(language);
}

function madeFor({how: {comment, string, word, anyCase}, words}) {
  const keyword = word?.source ?? `\\b(?:${words.replaceAll(" ", "|")})\\b`;
  const parts = [comment.source, string.source, keyword, NUMBER.source, "\\w+|[^]"];
  const source = KINDS.map((name, place) => `(?<${name}>${parts[place]})`).join("|");
  return new RegExp(source, anyCase ? "gi" : "g");
}
