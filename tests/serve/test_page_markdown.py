"""How the page shows Markdown: its own modules, in a headless Chromium. Skipped without one."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from browser import Browser
from page_browser import needs_chromium, opened
from running_server import running_sight

pytestmark = needs_chromium

SHOWN = """(async (text) => {
  const {Markdown} = await import("/page/markdown.js");
  const root = document.createElement("div");
  new Markdown(root).show(text);
  for (const head of root.querySelectorAll("figcaption")) head.remove();
  return root.innerHTML.replace(/ (tabindex|role|aria-label|rel|target|class)="[^"]*"/g, "");
})"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with (
        running_sight(tmp_path_factory.mktemp("markdown")) as server,
        opened(server.url + "/", tmp_path_factory.mktemp("chromium")) as made,
    ):
        yield made


def shown(page: Browser, text: str) -> str:
    return page.run(f"{SHOWN}({json.dumps(text)})")


SPANS = {
    "*a* **b** ***c*** ~~d~~": "<em>a</em> <strong>b</strong> <em><strong>c</strong></em> <del>d</del>",
    "**a *b* c** _d_": "<strong>a <em>b</em> c</strong> <em>d</em>",
    "snake_case_name 2 * 3 * 4 ** x": "snake_case_name 2 * 3 * 4 ** x",
    "**open": "**open",
    "`a*b*` ``c`d`` `open": "<code>a*b*</code> <code>c`d</code> `open",
    r"\*a\* \(x": r"*a* \(x",
    "$5 and $10, a $ b, $1-$2 $a\nb$": "$5 and $10, a $ b, $1-$2 $a<br>b$",
    "`$x$` \\$x$ $`x`$": "<code>$x$</code> $x$ $<code>x</code>$",
    r"$\nothing$ $a_$": r"<code>\nothing</code> <code>a_</code>",
    "[a **b**](https://x.org/c_(d) \"t\")": '<a href="https://x.org/c_(d)">a <strong>b</strong></a>',
    "![p](https://x.org/p.png)": '<a href="https://x.org/p.png">p</a>',
    "see https://x.org/a, (https://x.org/b).": 'see <a href="https://x.org/a">https://x.org/a</a>, '
    '(<a href="https://x.org/b">https://x.org/b</a>).',
    "[a](javascript:alert(1)) [b](data:text/html,x)": "[a](javascript:alert(1)) [b](data:text/html,x)",
    "[a] [b](": "[a] [b](",
    "<b>a</b> <img src=x> &amp;": "&lt;b&gt;a&lt;/b&gt; &lt;img src=x&gt; &amp;amp;",
    "a<br>b": "a<br>b",
    "a\nb": "a<br>b",
}  # fmt: skip

BLOCKS = {
    "# a #\n### b": "<h3>a</h3><h5>b</h5>",
    "#a": "<p>#a</p>",
    "a\n\nb": "<p>a</p><p>b</p>",
    "a\n***\nb": "<p>a</p><hr><p>b</p>",
    "```py\nx <\n\n# no\n```\na": "<figure><pre><code>x &lt;\n\n<span># no</span></code></pre></figure><p>a</p>",
    "```\nnot closed": "<figure><pre><code>not closed</code></pre></figure>",
    "~~~\n```\n~~~": "<figure><pre><code>```</code></pre></figure>",
    "- a\n- b\n  more": "<ul><li>a</li><li><p>b</p></li></ul>".replace("<p>b</p>", "b<br>more"),
    "- a\n\n- b": "<ul><li><p>a</p></li><li><p>b</p></li></ul>",
    "- [x] a\n- [ ] b": "<ul><li>☑ a</li><li>☐ b</li></ul>",
    "3. a\n   - b\n4. c": '<ol start="3"><li>a<ul><li>b</li></ul></li><li>c</li></ol>',
    "1. a\n  - b": '<ol start="1"><li>a<ul><li>b</li></ul></li></ol>',
    "1. a\n   ```\n   x\n   ```": '<ol start="1"><li>a<figure><pre><code>x</code></pre></figure></li></ol>',
    "Year\n1986. good": "<p>Year<br>1986. good</p>",
    "- a\n1. b": '<ul><li>a</li></ul><ol start="1"><li>b</li></ol>',
    "> a\n> > b\n\nc": "<blockquote><p>a</p><blockquote><p>b</p></blockquote></blockquote><p>c</p>",
    "|a|b|\n|-|-:|\n|1\\|2|*3*|\n|4|": "<figure><div><table><thead><tr><th>a</th><th>b</th></tr></thead>"
    "<tbody><tr><td>1|2</td><td><em>3</em></td></tr><tr><td>4</td><td></td></tr></tbody></table></div></figure>",
    "a | b\nc | d": "<p>a | b<br>c | d</p>",
}


FORMULAS = {
    r"x^2+y_{i}'": "<mrow><msup><mi>x</mi><mn>2</mn></msup><mo>+</mo>"
    "<msubsup><mi>y</mi><mi>i</mi><mo>′</mo></msubsup></mrow>",
    r"\frac12 - \sqrt[3]{\alpha}": "<mrow><mfrac><mn>1</mn><mn>2</mn></mfrac><mo>−</mo>"
    "<mroot><mi>α</mi><mn>3</mn></mroot></mrow>",
    r"\sum_{i=1}^n i": '<mrow><munderover><mo movablelimits="true">∑</mo><mrow><mi>i</mi><mo>=</mo><mn>1</mn></mrow>'
    "<mi>n</mi></munderover><mi>i</mi></mrow>",
    r"\int_0^1\!\sin x\,\mathrm{d}x": '<mrow><msubsup><mo>∫</mo><mn>0</mn><mn>1</mn></msubsup><mspace width="-0.167em">'
    '</mspace><mi mathvariant="normal">sin</mi><mspace width=".167em"></mspace><mi>x</mi>'
    '<mspace width="0.167em"></mspace><mi mathvariant="normal">d</mi><mi>x</mi></mrow>',
    r"\left(\vec{v}\right]": '<mrow><mo stretchy="true">(</mo><mover accent="true"><mi>v</mi>'
    '<mo stretchy="false">→</mo></mover><mo stretchy="true">]</mo></mrow>',
    r"\mathbb{R}^n \text{ if } \mathbf{Ab1}": "<mrow><msup><mi>ℝ</mi><mi>n</mi></msup><mtext>&nbsp;if&nbsp;</mtext>"
    "<mrow><mi>𝐀</mi><mi>𝐛</mi><mn>𝟏</mn></mrow></mrow>",
    r"\begin{pmatrix} a & b \\ c & d \\ \end{pmatrix}": '<mrow><mo stretchy="true">(</mo><mtable><mtr>'
    "<mtd><mi>a</mi></mtd><mtd><mi>b</mi></mtd></mtr><mtr><mtd><mi>c</mi></mtd><mtd><mi>d</mi></mtd></mtr></mtable>"
    '<mo stretchy="true">)</mo></mrow>',
    r"\lim_{x\to\infty} \underbrace{a}_{n}": '<mrow><munder><mi mathvariant="normal">lim</mi><mrow><mi>x</mi><mo>→</mo>'
    '<mi>∞</mi></mrow></munder><mspace width=".167em"></mspace><munder><munder accentunder="true"><mi>a</mi>'
    '<mo stretchy="true">⏟</mo></munder><mi>n</mi></munder></mrow>',
}  # fmt: skip
NO_FORMULAS = [r"\unknown x", "{a", "a}", "x^1^2", r"\frac{1}", r"\left( a", r"\begin{cases} a", "a & b", "x^", "#"]
NO_FORMULAS += ["{" * 60 + "}" * 60, r"\begin{x}a\end{x}", r"\text{a"]


@pytest.mark.parametrize("text", FORMULAS)
def test_formulas_are_mathml(page, text):
    told = f'<math><semantics>{FORMULAS[text]}<annotation encoding="application/x-tex">'
    for written in (f"${text}$", f"\\({text}\\)"):
        assert shown(page, written).startswith(f"<p>{told}")
    block = told.replace("<math>", '<math display="block">')
    for written in (f"$${text}$$", f"\\[\n{text}\n\\].", f"$$\n{text}\n$$"):
        assert shown(page, f"a\n{written}\nb").startswith(f"<p>a</p><div>{block}")


@pytest.mark.parametrize("text", NO_FORMULAS)
def test_what_is_no_formula_stays_to_be_read(page, text):
    said = page.run(f"{SHOWN}({json.dumps(f'$${text}$$')})")
    assert said == f"<div><code>{text}</code></div>".replace("&", "&amp;")


@pytest.mark.parametrize("text", SPANS)
def test_what_stands_within_a_text(page, text):
    assert shown(page, text) == f"<p>{SPANS[text]}</p>"


@pytest.mark.parametrize("text", BLOCKS)
def test_blocks(page, text):
    assert shown(page, text) == BLOCKS[text]


HARD = ["[", "*", "**a ", "`a ``b ```c ", "![", "_a* ", "> ", "- ", "|", "~~x", "https://", "1. ", "[a](", "\\"]
HARD += ["> \n", "- x\n", "|a|\n|-|\n", "  - x\n", "```\n", "1. a\n   - b\n", "*a ", "# ", "[a](https://x"]
HARD += ["$", "$a", "$$", "$$\n", "\\(", "\\[", "\\[\n", "$a $"]


def test_no_text_takes_long_or_breaks_it(page):
    """Marks within marks, without end: all of it stays to be read, and what is open is shown, not looked for again."""
    code = """(async (texts) => { const {Markdown} = await import("/page/markdown.js");
      return texts.filter((text) => { const root = document.createElement("div");
        new Markdown(root).show(text); return !root.childNodes.length; }); })"""
    texts = [part * (20_000 // len(part)) for part in HARD] + [
        "*a " * 20_000 + "a* " * 20_000,
        "[" * 9000 + "](https://x)" * 9000,
    ]
    assert page.run(f"{code}({json.dumps(texts)})") == []


CODE = {
    ("py", 'def f(): return "x" + 1.5 # if\n'): ["word def", "word return", 'string "x"', "number 1.5", "comment # if"],
    ("JS", "let a = `b\nc`; // d"): ["word let", "string `b\nc`", "comment // d"],
    ("c", "/* int\nx */ int y2 = 0x1F;"): ["comment /* int\nx */", "word int", "number 0x1F"],
    ("sql", "SELECT 'a' FROM b -- c"): ["word SELECT", "string 'a'", "word FROM", "comment -- c"],
    ("html", '<p class="a">if</p>'): ["word <p", 'string "a"', "word >", "word </p", "word >"],
    ("css", "p { color: red } /* c"): ["word color", "comment /* c"],
    ("json", '{"a": [true, "'): ['string "a"', "word true", 'string "'],
    ("nothing", "if 1"): [],
}  # fmt: skip


@pytest.mark.parametrize(("language", "text"), CODE)
def test_code_is_coloured_by_its_language(page, language, text):
    code = """(async (text, language) => { const {coloured} = await import("/page/code.js");
      const spans = coloured(text, language);
      return [spans.map((span) => span.text).join(""),
              spans.filter(({kind}) => kind !== "text").map(({kind, text}) => `${kind} ${text}`)]; })"""
    whole, found = page.run(f"{code}({json.dumps(text)}, {json.dumps(language)})")
    assert whole == text and found == CODE[language, text]


def test_no_code_takes_long(page):
    """Twenty thousand times what begins strings, comments and words, in each family of languages."""
    code = """(async () => { const {coloured} = await import("/page/code.js"), slow = [];
      const parts = ["/*", '"', "'\\\\", "`a", "0", "<", "a", '\"\"\"a', "a-", "#"];
      for (const name of "c js rust python sh sql html css".split(" ")) for (const part of parts) {
        const text = part.repeat(20_000), begun = performance.now();
        if (coloured(text, name).map((span) => span.text).join("") !== text) slow.push(`${name} loses ${part}`);
        if (performance.now() - begun > 5000) slow.push(`${name} ${part}`); }
      return slow; })()"""
    assert page.run(code) == []


def test_what_grows_keeps_the_nodes_that_stay(page):
    kept = page.run("""(async () => { const {Markdown} = await import("/page/markdown.js");
      const root = document.createElement("div"), markdown = new Markdown(root), seen = [];
      markdown.show("a\\n\\n- b"); const [first, second] = root.children;
      markdown.show("a\\n\\n- b\\n- c\\n\\nd");
      return [root.children[0] === first, root.children[1] === second, root.textContent]; })()""")
    assert kept == [True, False, "abcd"]


def test_code_and_tables_are_copied(page):
    code = """(async () => { const {Markdown} = await import("/page/markdown.js"); const copied = [];
      const clipboard = {writeText: async (text) => copied.push(text)};
      Object.defineProperty(navigator, "clipboard", {configurable: true, value: clipboard});
      const root = document.createElement("div");
      new Markdown(root).show("```py\\na\\n  b\\n```\\n\\n|x|y|\\n|-|-|\\n|1|2|");
      for (const one of root.querySelectorAll("button")) one.click();
      return copied; })()"""
    assert page.run(code) == ["a\n  b", "x\ty\n1\t2"]
