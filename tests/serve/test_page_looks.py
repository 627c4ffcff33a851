"""How the page looks and is told to those who do not see it, with the model that comes with opsin."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from axe import faults, fetch_axe
from browser import Browser
from page_browser import answer, ask, click, needs_chromium, opened
from running_server import Running, running

import opsin
from opsin.hub.bundled import bundled

pytestmark = needs_chromium
EXAMPLES = Path(__file__).parents[2] / "examples"

# An answer of everything that Markdown has, and what is wider than a telephone.
LONG = "w" * 200
SHOWN = f"""import("/page/markdown.js").then(({{Markdown}}) => {{
  const said = [...document.querySelectorAll("article.model .said")].at(-1);
  new Markdown(said).show("# A\\n\\n## B\\n\\na **b** `c` [d](https://x.org)\\n\\n> e\\n\\n1. f\\n   - g\\n\\n" +
    "```py\\n{LONG}\\n```\\n\\n|{LONG}|i|\\n|-|-|\\n|j|{LONG}|\\n\\n{LONG}\\n\\n---\\n" +
    "$$\\\\sum x{"+x" * 200}$$\\n\\nand $y^2$, $\\\\nothing$"); }})"""


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with opsin.load(bundled(), threads=2, sequences=2) as model, running(lambda: model) as made:
        yield made


@pytest.fixture(scope="module")
def page(server: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with opened(server.url + "/", tmp_path_factory.mktemp("chromium")) as made:
        made.run("extra = {}")
        yield made


def test_it_says_what_the_model_can_do_and_offers_examples(page, server):
    page.wait("document.getElementById('examples').checkVisibility()")
    assert "not photos" in page.run("document.getElementById('about').textContent")
    page.wait("[...document.querySelectorAll('#examples img')].every((one) => one.complete && one.naturalWidth)")
    page.run("document.querySelector('#examples button').click()")
    page.wait("document.querySelectorAll('article.person img').length === 1")
    assert answer(page) == "Four."
    told = page.run("document.querySelector('article.model footer').textContent")
    assert "2 written" in told and "a second" not in told  # the speed of two tokens says nothing


def test_it_shows_how_much_of_a_question_is_read(page):
    told = page.run("""(async () => { const {AnswerView} = await import("/page/answer_view.js");
      const view = new AnswerView(() => ({}), "loading"), seen = [];
      for (const about of [{}, {progress: {processed: 25, total: 100}}, {timings: {cache_n: 0, prompt_n: 100}}]) {
        view.grow({content: "", about});
        seen.push([view.note.hidden, view.progress.hidden, view.progress.value]); }
      return seen; })()""")
    assert told == [[False, True, 0], [True, False, 0.25], [True, True, 0.25]]


def test_its_examples_are_those_of_the_repository(server):
    folder = Path(opsin.__file__).parent / "serve" / "page" / "examples"
    for path in folder.iterdir():
        assert path.read_bytes() == (EXAMPLES / path.name).read_bytes()


@pytest.mark.parametrize("width", [320, 768, 1440])
def test_nothing_is_wider_than_the_screen(page, width):
    ask(page, "What else?")
    page.run(SHOWN)
    page.call("Emulation.setDeviceMetricsOverride", width=width, height=700, deviceScaleFactor=1, mobile=width < 500)
    assert page.run("document.documentElement.scrollWidth") <= width
    wide = "[...document.querySelectorAll('.wide, pre, div.formula')]"
    assert page.run(f"{wide}.every((one) => one.scrollWidth > one.clientWidth)")
    assert page.run(f"{wide}.every((one) => getComputedStyle(one).overflowX === 'auto')")
    for name in ("settings", "history"):
        click(page, name.capitalize())
        beyond = f"[...document.querySelectorAll('#{name}, #{name} *')].filter((one) => one.checkVisibility())"
        assert page.run(f"Math.max(...{beyond}.map((one) => one.getBoundingClientRect().right))") <= width
        click(page, "Close" if name == "history" else "Cancel")
    page.call("Emulation.clearDeviceMetricsOverride")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(page, scheme):
    script = fetch_axe()
    if isinstance(script, str):
        pytest.skip(script)
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    page.run("window.axe ? 0 : 1") and page.run(script.read_text() + ";0")
    page.run(SHOWN)
    page.run("import('/page/talk_view.js').then(({TalkView}) => new TalkView({}).fail('It is wrong.'))")
    assert faults(page) == []
    for name in ("Settings", "History"):
        click(page, name)
        assert faults(page) == []
        click(page, "Close" if name == "History" else "Cancel")
    page.run("document.querySelector('.error').remove()")
    click(page, "New")
    assert faults(page) == []
    ask(page, "And now?")
