/** Formulas as nodes of MathML, and those that cannot be read as the text that they are. */

import {make} from "./dom.js";
import {formulaOf} from "./tex.js";

const SPACE = "http://www.w3.org/1998/Math/MathML";
const SIDES = {l: "left", c: "center", r: "right"};

/** `source` is TeX; `isBlock` stands by itself. */
export function formulaNode(source, isBlock) {
  try {
    const shown = mml("semantics", {}, rowOf([nodeOf(formulaOf(source))]),
                      mml("annotation", {encoding: "application/x-tex"}, source.trim()));
    return mml("math", isBlock ? {display: "block"} : {}, shown);
  } catch {
    return make("code", {className: "formula"}, source.trim());
  }
}

function mml(tag, attributes, ...inside) {
  const made = document.createElementNS(SPACE, tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== undefined) made.setAttribute(name, value);
  made.append(...inside);
  return made;
}

const rowOf = (nodes) => nodes.length === 1 ? nodes[0] : mml("mrow", {}, ...nodes);
const nodeOf = (part) => MAKERS[part.kind](part);

const MAKERS = {
  row: ({items}) => rowOf(items.flatMap((item, place) => [nodeOf(item), ...afterName(item, items[place + 1])])),
  letter: ({text, upright}) => mml("mi", upright ? {mathvariant: "normal"} : {}, text),
  number: ({text}) => mml("mn", {}, text),
  text: ({text}) => mml("mtext", {}, text.replace(/^ | $/g, "\u00a0")),
  name: ({text}) => mml("mi", {mathvariant: "normal"}, text),
  space: ({width}) => mml("mspace", {width: `${width}em`}),
  op: operatorOf,
  fraction: fractionOf,
  root: ({degree, inside}) => mml(degree ? "mroot" : "msqrt", {}, ...[inside, degree].filter(Boolean).map(nodeOf)),
  accent: accentOf,
  scripts: scriptsOf,
  fenced: ({open, inside, close}) => mml("mrow", {}, ...fence(open), nodeOf(inside), ...fence(close)),
  boxed: ({inside}) => mml("mrow", {class: "boxed"}, nodeOf(inside)),
  table: tableOf,
};

const fence = (text) => text ? [mml("mo", {stretchy: true}, text)] : [];

/** A little room behind the name of a function, where no fence and no mark follows. */
function afterName(item, next) {
  const isName = item.kind === "name" || (item.kind === "scripts" && item.base.kind === "name");
  const isApart = !next || next.kind === "op" || next.kind === "fenced" || next.kind === "space";
  return isName && !isApart ? [mml("mspace", {width: ".167em"})] : [];
}

/** Fences that nobody asked to grow keep their size; bars are no relations. */
function operatorOf({text, grows, size, bounded}) {
  const isFence = /^[()[\]{}|‖⟨⟩⌊⌋⌈⌉/\\]$/.test(text), isBar = text === "|" || text === "‖";
  const sized = size ? {minsize: `${size}em`, maxsize: `${size}em`} : {};
  return mml("mo", {
    ...(isFence || grows || size ? {stretchy: Boolean(grows || size), ...sized} : {}),
    ...(isBar && !grows ? {lspace: 0, rspace: 0} : {}),
    ...(bounded ? {movablelimits: true} : {}),
    ...(text === "mod" ? {lspace: ".3em", rspace: ".3em"} : {}),
  }, text);
}

function accentOf({base, mark, wide, below}) {
  const shown = mml("mo", {stretchy: Boolean(wide)}, mark);
  const [tag, tells] = below ? ["munder", {accentunder: true}] : ["mover", {accent: true}];
  return mml(tag, tells, nodeOf(base), shown);
}

function fractionOf({over, under, style, isBare}) {
  const made = mml("mfrac", isBare ? {linethickness: 0} : {}, nodeOf(over), nodeOf(under));
  return style ? mml("mstyle", {displaystyle: style === "display", scriptlevel: 0}, made) : made;
}

/** Sums and limits have their bounds below and above, everything else beside. */
function scriptsOf({base, sub, sup}) {
  const [under, over, both] = base.bounded ? ["munder", "mover", "munderover"] : ["msub", "msup", "msubsup"];
  const inside = [base, sub, sup].filter(Boolean).map(nodeOf);
  return mml(sub && sup ? both : sub ? under : over, {}, ...inside);
}

function tableOf({rows, sideOf, isAligned}) {
  const cell = (part, column) => mml("mtd", {class: SIDES[sideOf(column)]}, nodeOf(part));
  const made = rows.map((row) => mml("mtr", {}, ...row.map(cell)));
  return mml("mtable", isAligned ? {class: "aligned", displaystyle: true} : {}, ...made);
}
