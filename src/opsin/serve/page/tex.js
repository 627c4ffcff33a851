/** A part of TeX's mathematics into a tree, {kind, ...}: what models write. It knows no nodes.
 *
 * What it does not know it throws: then the text stays as it was written.
 */

import * as symbols from "./tex_symbols.js";
import {TexTokens} from "./tex_tokens.js";

const LONGEST = 5000;  // characters
const DEEPEST = 40;  // groups within each other
const SIZES = {big: 1.2, Big: 1.8, bigg: 2.4, Bigg: 3};
const MATRICES = {
  matrix: ["", ""], smallmatrix: ["", ""], array: ["", ""], pmatrix: ["(", ")"], bmatrix: ["[", "]"],
  Bmatrix: ["{", "}"], vmatrix: ["|", "|"], Vmatrix: ["‖", "‖"], cases: ["{", ""], dcases: ["{", ""],
};
const ALIGNED = /^(?:aligned|align|split|eqnarray|gather|gathered|equation|multline)\*?$/;
const LEFT_OUT = /^(?:display|text|script|scriptscript)style$|^no(?:tag|number)$|^(?:no)?limits$|^hline$/;
const NOTHING = {kind: "row", items: []};

/** Throws for what is no formula of the part that is known. */
export function formulaOf(text) {
  if (text.length > LONGEST) throw new Error("too long");
  return readRow(Object.assign(new TexTokens(text), {depth: 0, alphabet: ""}), (token) => token === "");
}

function readRow(tokens, stops) {
  const items = [];
  if ((tokens.depth += 1) > DEEPEST) throw new Error("too deep");
  for (let token = tokens.peek(); !stops(token); token = tokens.peek()) {
    if (token === "") throw new Error("not closed");
    items.push(readScripted(tokens));
  }
  tokens.depth -= 1;
  return items.length === 1 ? items[0] : {kind: "row", items};
}

const isScript = (token) => token === "^" || token === "_" || token === "'";

/** Something with what stands below and above it. */
function readScripted(tokens) {
  const made = {kind: "scripts", base: isScript(tokens.peek()) ? NOTHING : readAtom(tokens)};
  while (isScript(tokens.peek())) {
    const token = tokens.next(), place = token === "_" ? "sub" : "sup";
    const inside = token === "'" ? {kind: "op", text: "′"} : readArgument(tokens);
    if (made[place] && token !== "'" && made[place].text !== "′") throw new Error("two in one place");
    made[place] = made[place] ? {kind: "row", items: [made[place], inside]} : inside;
  }
  return made.sub || made.sup ? made : made.base;
}

/** What a command or a mark takes: a group, or the next thing; of a number its first digit. */
function readArgument(tokens) {
  const token = tokens.peek();
  return /^\d/.test(token) ? numberOf(tokens.digit(), tokens) : readAtom(tokens);
}

const numberOf = (text, {alphabet}) => ({kind: "number", text: symbols.inAlphabet(text, alphabet)});

function readAtom(tokens) {
  const token = tokens.next(), {alphabet} = tokens;
  if (token === "{") return readGroup(tokens, "}");
  if (token[0] === "\\" && token.length > 1) return readCommand(tokens, token.slice(1));
  if (/^\d/.test(token)) return numberOf(token, tokens);
  if (/^\p{L}$/u.test(token)) {
    return {kind: "letter", text: symbols.inAlphabet(token, alphabet), upright: alphabet === "mathrm"};
  }
  if (token === "~") return {kind: "space", width: .333};
  if ("&}^_\\$#".includes(token)) throw new Error(`${token} stands alone`);  // so does the end
  return {kind: "op", text: {"-": "−", "*": "∗"}[token] ?? token};
}

function readGroup(tokens, end) {
  const inside = readRow(tokens, (token) => token === end);
  tokens.take(end);
  return inside.kind === "row" ? inside : {kind: "row", items: [inside]};
}

const readOption = (tokens) => tokens.has("[") ? readGroup(tokens, "]") : undefined;

function readCommand(tokens, name) {
  const is = (table) => Object.hasOwn(symbols[table], name) && symbols[table][name];
  const {FUNCTIONS, BOUNDED} = symbols, argument = () => readArgument(tokens);
  if (is("LETTERS")) return {kind: "letter", text: is("LETTERS"), upright: /^[A-Z]/.test(name)};
  if (is("OPERATORS") || is("FENCES")) return {kind: "op", text: is("OPERATORS") || is("FENCES")};
  if (is("LARGE")) return {kind: "op", text: is("LARGE"), bounded: true};
  if (is("INTEGRALS")) return {kind: "op", text: is("INTEGRALS")};
  if (FUNCTIONS.has(name) || BOUNDED.has(name)) return {kind: "name", text: name, bounded: BOUNDED.has(name)};
  if (is("ACCENTS")) return {kind: "accent", base: argument(), mark: is("ACCENTS")};
  const bounded = name.endsWith("brace");
  if (is("WIDE")) return {kind: "accent", base: argument(), mark: is("WIDE"), wide: true, bounded};
  if (is("BELOW")) return {kind: "accent", base: argument(), mark: is("BELOW"), wide: true, below: true, bounded};
  if (is("SPACES")) return {kind: "space", width: is("SPACES")};
  if (LEFT_OUT.test(name)) return NOTHING;
  if (symbols.isAlphabet(name)) return readInAlphabet(tokens, name);
  if (Object.hasOwn(COMMANDS, name)) return COMMANDS[name](tokens);
  const size = SIZES[name.replace(/[lrm]$/, "")];
  if (size) return {kind: "op", text: readFence(tokens), size};
  throw new Error(`\\${name} is not known`);
}

function readInAlphabet(tokens, alphabet) {
  const before = tokens.alphabet;
  tokens.alphabet = alphabet;
  const made = readArgument(tokens);
  tokens.alphabet = before;
  return made;
}

function readFence(tokens) {
  const token = tokens.next(), name = token.slice(1), {FENCES, OPERATORS} = symbols;
  const text = token.length === 1 ? token : FENCES[name] ?? OPERATORS[name];
  if (!text || !/^[()[\]{}|/\\<>.↑↓↕⇑⇓‖⟨⟩⌈⌉⌊⌋⌜⌝]$/.test(text)) throw new Error(`${token} is no fence`);
  return {"<": "⟨", ">": "⟩", ".": ""}[text] ?? text;
}

function readFenced(tokens) {
  const open = readFence(tokens), items = [];
  for (;;) {
    items.push(readRow(tokens, (token) => token === "\\right" || token === "\\middle"));
    if (tokens.next() === "\\right") return fenced(open, {kind: "row", items}, readFence(tokens));
    items.push({kind: "op", text: readFence(tokens), grows: true});
  }
}

const fenced = (open, inside, close) => ({kind: "fenced", open, inside, close});

function readEnvironment(tokens) {
  const name = tokens.group(), isAligned = ALIGNED.test(name);
  if (!isAligned && !Object.hasOwn(MATRICES, name)) throw new Error(`${name} is not known`);
  const [open, close] = MATRICES[name] ?? ["", ""];
  const sides = name === "array" ? tokens.group().replace(/[^lcr]/g, "") : name.endsWith("cases") ? "ll" : "";
  const rows = readRows(tokens), isNarrow = rows.every((row) => row.length === 1);
  if (tokens.group() !== name) throw new Error(`${name} is not ended`);
  const sideOf = (column) => isAligned ? isNarrow ? "c" : column % 2 ? "l" : "r" : sides[column] ?? "c";
  const table = {kind: "table", rows, sideOf, isAligned};
  return open ? fenced(open, table, close) : table;
}

/** Up to `\end`. A line's end at the very end begins no other one. */
function readRows(tokens) {
  const rows = [[]], ends = (token) => token === "&" || token === "\\\\" || token === "\\end";
  for (;;) {
    rows.at(-1).push(readRow(tokens, ends));
    const token = tokens.next();
    if (token === "\\end") break;
    if (token === "\\\\") { readOption(tokens); rows.push([]); }
  }
  const isEmpty = rows.at(-1).length === 1 && rows.at(-1)[0].items?.every((item) => item === NOTHING);
  return rows.length > 1 && isEmpty ? rows.slice(0, -1) : rows;
}

const two = (tokens) => [readArgument(tokens), readArgument(tokens)];
const bounds = (base, sup, sub) => ({kind: "scripts", base: {kind: "row", items: [base], bounded: true}, sup, sub});
const readText = (tokens) => ({kind: "text", text: tokens.group()});

const fraction = (style, isBare = false) => (tokens) => {
  const [over, under] = two(tokens);
  return {kind: "fraction", over, under, style, isBare};
};

const arrow = (text) => (tokens) => {
  const sub = readOption(tokens);
  return bounds({kind: "op", text, grows: true}, readArgument(tokens), sub);
};

const COMMANDS = {
  frac: fraction(), tfrac: fraction("text"), dfrac: fraction("display"), cfrac: fraction("display"),
  binom: (tokens) => fenced("(", fraction("", true)(tokens), ")"),
  sqrt: (tokens) => ({kind: "root", degree: readOption(tokens), inside: readArgument(tokens)}),
  left: readFenced, begin: readEnvironment,
  text: readText, textrm: readText, textbf: readText, textit: readText, mbox: readText,
  operatorname: (tokens) => ({kind: "name", bounded: tokens.has("*"), text: tokens.group().replace(/\\[,;! ]/g, " ")}),
  overset: (tokens) => { const [sup, base] = two(tokens); return bounds(base, sup); },
  stackrel: (tokens) => COMMANDS.overset(tokens),
  underset: (tokens) => { const [sub, base] = two(tokens); return bounds(base, undefined, sub); },
  xrightarrow: arrow("→"), xleftarrow: arrow("←"),
  boxed: (tokens) => ({kind: "boxed", inside: readArgument(tokens)}),
  not: (tokens) => { const made = readAtom(tokens); return {...made, text: `${made.text ?? ""}\u0338`}; },
  bmod: () => ({kind: "op", text: "mod"}),
  pmod: (tokens) => fenced("(", {kind: "row", items: [{kind: "name", text: "mod"}, readArgument(tokens)]}, ")"),
  tag: (tokens) => ({kind: "text", text: `\u2003(${tokens.group()})`}),
  label: (tokens) => { tokens.group(); return NOTHING; },
  textcolor: (tokens) => { tokens.group(); return readArgument(tokens); },
};
