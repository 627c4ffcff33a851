/** Names of TeX's mathematics, and the characters that they are. */

const pairs = (text) => Object.fromEntries(text.trim().split(/\s+/).map((pair) => pair.split(/:(.*)/s).slice(0, 2)));
const names = (text) => new Set(text.trim().split(/\s+/));

/** Letters and what stands like one. */
export const LETTERS = pairs(`alpha:α beta:β gamma:γ delta:δ epsilon:ϵ varepsilon:ε zeta:ζ eta:η theta:θ vartheta:ϑ
  iota:ι kappa:κ lambda:λ mu:μ nu:ν xi:ξ omicron:ο pi:π varpi:ϖ rho:ρ varrho:ϱ sigma:σ varsigma:ς tau:τ upsilon:υ
  phi:ϕ varphi:φ chi:χ psi:ψ omega:ω Gamma:Γ Delta:Δ Theta:Θ Lambda:Λ Xi:Ξ Pi:Π Sigma:Σ Upsilon:Υ Phi:Φ Psi:Ψ Omega:Ω
  hbar:ℏ ell:ℓ Re:ℜ Im:ℑ wp:℘ aleph:ℵ beth:ℶ infty:∞ partial:∂ nabla:∇ emptyset:∅ varnothing:∅ imath:ı jmath:ȷ
  degree:° angle:∠ triangle:△ square:□ Box:□ blacksquare:■ qed:∎ bot:⊥ top:⊤ ldots:… dots:… dotsc:… cdots:⋯ dotsb:⋯
  vdots:⋮ ddots:⋱ prime:′ clubsuit:♣ heartsuit:♡ spadesuit:♠ diamondsuit:♢ checkmark:✓ star:⋆ dagger:† complement:∁
  $:$ %:% #:# _:_ &:&`);

/** Operators, relations, arrows, and marks between. */
export const OPERATORS = pairs(`pm:± mp:∓ times:× div:÷ cdot:⋅ ast:∗ circ:∘ bullet:∙ oplus:⊕ ominus:⊖ otimes:⊗ odot:⊙
  cap:∩ cup:∪ sqcap:⊓ sqcup:⊔ vee:∨ lor:∨ wedge:∧ land:∧ setminus:∖ wr:≀ leq:≤ le:≤ leqslant:⩽ geq:≥ ge:≥ geqslant:⩾
  ll:≪ gg:≫ neq:≠ ne:≠ equiv:≡ approx:≈ cong:≅ sim:∼ simeq:≃ propto:∝ doteq:≐ coloneqq:≔ in:∈ notin:∉ ni:∋ subset:⊂
  supset:⊃ subseteq:⊆ supseteq:⊇ subsetneq:⊊ supsetneq:⊋ prec:≺ succ:≻ preceq:⪯ succeq:⪰ perp:⊥ parallel:∥ mid:∣ nmid:∤
  vdash:⊢ models:⊨ vDash:⊨ forall:∀ exists:∃ nexists:∄ neg:¬ lnot:¬ therefore:∴ because:∵ to:→ rightarrow:→ gets:←
  leftarrow:← leftrightarrow:↔ Rightarrow:⇒ Leftarrow:⇐ Leftrightarrow:⇔ implies:⟹ impliedby:⟸ iff:⟺ mapsto:↦
  longmapsto:⟼ longrightarrow:⟶ longleftarrow:⟵ Longrightarrow:⟹ Longleftrightarrow:⟺ uparrow:↑ downarrow:↓
  updownarrow:↕ Uparrow:⇑ Downarrow:⇓ nearrow:↗ searrow:↘ swarrow:↙ nwarrow:↖ hookrightarrow:↪ hookleftarrow:↩
  rightharpoonup:⇀ rightleftharpoons:⇌ leadsto:⇝ upharpoonright:↾ colon:: lesssim:≲ gtrsim:≳ trianglelefteq:⊴ ltimes:⋉
  rtimes:⋊ bowtie:⋈ amalg:⨿ asymp:≍ smile:⌣ frown:⌢ blacktriangleright:▸`);

/** Those that stand over what they go through: with bounds below and above them, or, integrals, beside. */
export const LARGE = pairs(`sum:∑ prod:∏ coprod:∐ bigcup:⋃ bigcap:⋂ bigvee:⋁ bigwedge:⋀ bigoplus:⨁ bigotimes:⨂
  bigodot:⨀ bigsqcup:⨆ biguplus:⨄`);
export const INTEGRALS = pairs("int:∫ iint:∬ iiint:∭ oint:∮");

/** What stands around things, and grows with them where it is asked to. */
export const FENCES = pairs(`{:{ }:} lbrace:{ rbrace:} |:‖ Vert:‖ lVert:‖ rVert:‖ vert:| lvert:| rvert:| langle:⟨
  rangle:⟩ lfloor:⌊ rfloor:⌋ lceil:⌈ rceil:⌉ lbrack:[ rbrack:] backslash:\\ ulcorner:⌜ urcorner:⌝`);

/** Functions by their own names; those of the second have bounds below them. */
export const FUNCTIONS = names(`sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh coth log ln lg exp dim ker
  deg hom arg`);
export const BOUNDED = names("lim limsup liminf max min sup inf gcd det Pr argmax argmin");

/** Marks above a letter; wide ones grow. */
export const ACCENTS = pairs("hat:^ bar:¯ vec:→ dot:˙ ddot:¨ tilde:~ check:ˇ breve:˘ acute:´ grave:` mathring:˚");
export const WIDE = pairs("widehat:^ widetilde:~ overline:‾ overrightarrow:→ overleftarrow:← overbrace:⏞");
export const BELOW = pairs("underline:_ underbrace:⏟");

/** Widths of spaces, in em. */
export const SPACES = {",": .167, ":": .222, ">": .222, ";": .278, "!": -.167, " ": .333, quad: 1, qquad: 2,
                       thinspace: .167, enspace: .5};

/** Alphabets by their commands: where A, a and 0 stand, and letters that stand elsewhere. */
const ALPHABETS = {
  mathbf: [0x1d400, 0x1d41a, 0x1d7ce], boldsymbol: [0x1d400, 0x1d41a, 0x1d7ce], bm: [0x1d400, 0x1d41a, 0x1d7ce],
  mathbb: [0x1d538, 0x1d552, 0x1d7d8, "CℂHℍNℕPℙQℚRℝZℤ"],
  mathcal: [0x1d49c, 0x1d4b6, 0, "BℬEℰFℱHℋIℐLℒMℳRℛeℯgℊoℴ"],
  mathscr: [0x1d49c, 0x1d4b6, 0, "BℬEℰFℱHℋIℐLℒMℳRℛeℯgℊoℴ"],
  mathfrak: [0x1d504, 0x1d51e, 0, "CℭHℌIℑRℜZℨ"],
  mathsf: [0x1d5a0, 0x1d5ba, 0x1d7e2], mathtt: [0x1d670, 0x1d68a, 0x1d7f6],
  mathrm: [0, 0, 0], mathit: [0, 0, 0], mathnormal: [0, 0, 0],
};

export const isAlphabet = (name) => Object.hasOwn(ALPHABETS, name);

/** Letters and digits in an alphabet; what has no place there stays. */
export function inAlphabet(text, name) {
  const [capital, small, digit, others = ""] = ALPHABETS[name] ?? [0, 0, 0];
  const begins = [[/[A-Z]/, "A", capital], [/[a-z]/, "a", small], [/[0-9]/, "0", digit]];
  return Array.from(text, (letter) => {
    const at = others.indexOf(letter), [, first, begin] = begins.find(([kind]) => kind.test(letter)) ?? [];
    if (at >= 0) return others[at + 1];
    return begin ? String.fromCodePoint(begin + letter.charCodeAt(0) - first.charCodeAt(0)) : letter;
  }).join("");
}
