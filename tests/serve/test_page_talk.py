"""What people do with a conversation on the page, in a headless Chromium, with a model that says what a test says."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe import faults, fetch_axe
from browser import Browser
from page_browser import LISTEN, answer, ask, click, needs_chromium, opened, press, write
from running_server import Running, calling_model, live, running
from scripted import scripted
from test_tools import SPECIALS, TEMPLATE, TOOL, call
from tiny import tiny_llama

import opsin
from opsin.api import Answer, Model
from opsin.serve.options import Options
from opsin.serve.registry import ModelRegistry, ModelSource

pytestmark = needs_chromium

FOOTER = "[...document.querySelectorAll('article.model footer')].at(-1).innerText"
HEADS = "import('/page/history.js').then((history) => history.search(''))"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with (
        calling_model(tmp_path_factory.mktemp("calling"), TEMPLATE, SPECIALS) as model,
        running(lambda: model, name="one") as made,
    ):
        yield made


@pytest.fixture(scope="module")
def browser(server: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    flags = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    with opened(server.url + "/", tmp_path_factory.mktemp("chromium"), *flags) as made:
        made.run("extra = {}")
        yield made


@pytest.fixture
def page(browser: Browser) -> Browser:
    """An empty conversation, nothing set, nothing kept."""
    browser.run("document.querySelectorAll('dialog[open]').forEach((one) => one.close())")
    click(browser, "Settings")
    click(browser, "As the model has it")
    click(browser, "Save")
    click(browser, "New")
    browser.run("import('/page/history.js').then((history) => history.clear())")
    return browser


def talk(page: Browser, server: Running, *pairs: tuple[str, str]) -> None:
    for question, said in pairs:
        with scripted(server.service.model, said):
            assert ask(page, question) == said


def sent(page: Browser) -> list[tuple[str, str]]:
    """The messages of the last request."""
    return [(message["role"], message["content"]) for message in page.run("sent.at(-1).messages")]


def field(page: Browser, name: str, value: str) -> None:
    page.run(f"""(() => {{ const field = document.getElementById({name!r}); field.value = {json.dumps(value)};
      field.dispatchEvent(new Event("input", {{bubbles: true}})); }})()""")


def test_thoughts_are_folded_and_markdown_is_shown(page, server):
    with scripted(server.service.model, "<think>\nLet me see.\n</think>\n\nIt is **42**."):
        assert ask(page, "What is it?") == "It is 42."
    assert page.run("document.querySelector('.said strong').textContent") == "42"
    assert page.run("document.querySelector('.thoughts').open") is False
    assert "Let me see." in page.run("document.querySelector('.thoughts div').textContent")


def test_tools_are_declared_called_and_answered(page, server):
    click(page, "Settings")
    field(page, "tools", json.dumps([TOOL]))
    click(page, "Save")
    with scripted(server.service.model, call()):
        ask(page, "Weather?")
    assert page.run("sent.at(-1).tools[0].function.name") == "weather"
    assert page.run("document.querySelector('.call summary').textContent") == "Calls weather"
    assert json.loads(page.run("document.querySelector('.call pre').textContent")) == {"city": "Björk<b>", "days": 3}
    page.run("document.querySelector('.results textarea').value = 'sunny'")
    with scripted(server.service.model, "Sun."):
        click(page, "Give results")
        assert answer(page) == "Sun."
    told = page.run("sent.at(-1).messages")
    assert [message["role"] for message in told] == ["user", "assistant", "tool"]
    assert told[2]["tool_call_id"] == told[1]["tool_calls"][0]["id"] and told[2]["content"] == "sunny"
    assert page.run("document.querySelector('article.tool pre').textContent") == "sunny"


def test_axe_finds_nothing_where_thoughts_and_calls_are_shown(page, server):
    script = fetch_axe()
    if isinstance(script, str):
        pytest.skip(script)
    page.run(f"extra = {{tools: {json.dumps([TOOL])}}}")
    with scripted(server.service.model, f"<think>\nHm.\n</think>\n\nI ask.\n{call()}"):
        ask(page, "Weather?")
    page.run("extra = {}")
    page.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    page.run(script.read_text() + ";0")
    assert faults(page) == []
    for name in ("locked", "camera-dialog"):
        page.run(f"document.getElementById({name!r}).showModal()")
        assert faults(page) == []
        page.run(f"document.getElementById({name!r}).close()")


def test_an_edited_question_is_asked_anew_and_the_old_talk_is_kept(page, server):
    talk(page, server, ("first", "a"), ("second", "b"))
    click(page, "Edit", 0)
    assert page.run("document.getElementById('text').value") == "first"
    talk(page, server, ("other", "c"))
    assert sent(page) == [("user", "other")]
    assert page.run("document.querySelectorAll('article').length") == 2
    assert sorted(head["title"] for head in page.run(HEADS)) == ["first", "other"]


def test_a_refused_edit_changes_nothing(page, server):
    talk(page, server, ("first", "a"), ("second", "b"))
    click(page, "Edit", 0)
    page.run("document.getElementById('text').value = 'word '.repeat(5000)")
    page.run("document.getElementById('ask').requestSubmit()")
    page.wait("!!document.querySelector('.error')")
    assert page.run("[...document.querySelectorAll('article.person .said')].map((one) => one.textContent)") == [
        "first",
        "second",
    ]
    assert page.run("document.getElementById('text').value.length") > 20_000
    talk(page, server, ("shorter", "c"))  # it is still that question which is mended
    assert sent(page) == [("user", "shorter")]


def test_what_was_refused_is_forgotten(page, server):
    talk(page, server, ("first", "a"))
    page.run("document.getElementById('text').value = 'word '.repeat(5000)")
    page.run("document.getElementById('ask').requestSubmit()")
    page.wait("!!document.querySelector('.error')")
    talk(page, server, ("second", "b"))
    assert sent(page) == [("user", "first"), ("assistant", "a"), ("user", "second")]


def test_an_answer_that_was_cut_says_so_and_goes_on(page, server):
    page.run("extra = {max_tokens: 3}")
    with scripted(server.service.model, "one two three four five"):
        ask(page, "Count")
    page.run("extra = {}")
    assert "cut" in page.run(FOOTER) and "Go on" in page.run(FOOTER)


def test_asked_again_it_keeps_both_answers(page, server):
    talk(page, server, ("which?", "this"))
    with scripted(server.service.model, "that"):
        click(page, "Ask again")
        assert answer(page) == "that"
    assert sent(page) == [("user", "which?")]
    click(page, "Other answer")
    assert page.run("document.querySelector('article.model .said').textContent") == "this"
    talk(page, server, ("and?", "so"))
    assert sent(page) == [("user", "which?"), ("assistant", "this"), ("user", "and?")]


def test_a_stopped_answer_goes_on(page, server, monkeypatch):
    right = Answer.__next__
    monkeypatch.setattr(Answer, "__next__", lambda self: time.sleep(0.05) or right(self))
    with scripted(server.service.model, "one two three four five six seven eight nine ten " * 9):
        page.run("document.getElementById('text').value = 'count'; document.getElementById('ask').requestSubmit()")
        page.wait("document.querySelector('article.working .said')?.textContent.includes('two')")
        press(page, "Escape")
        begun = answer(page)
    assert "stopped" in page.run(FOOTER) and "written" in page.run(FOOTER)
    with scripted(server.service.model, " and so on"):
        click(page, "Go on")
        said = answer(page)
    assert said.startswith(begun.strip()) and said.endswith("and so on")
    assert page.run("sent.at(-1).continue_final_message") and not page.run("sent.at(-1).add_generation_prompt")
    assert sent(page)[-1][0] == "assistant" and "Go on" not in page.run(FOOTER)


STREAM = """{ const asked = fetch;
  const values = %s, lines = values.map((value) => "data: " + JSON.stringify({choices: [value]}) + "\\n\\n").join("");
  window.fetch = async (url, options) => { window.fetch = asked;
    return new Response(new ReadableStream({ start(controller) { controller.enqueue(new TextEncoder().encode(lines)); },
      pull(controller) { %s } })); }; }"""


def test_what_came_of_an_answer_that_broke_off_is_kept(page):
    page.run(STREAM % (json.dumps([{"delta": {"content": "half an"}}]), "controller.error(new Error('gone'))"))
    assert ask(page, "So?") == "half an"
    assert "gone" in page.run("document.querySelector('.error').textContent") and "stopped" in page.run(FOOTER)
    page.run(STREAM % ("[]", "controller.error(new Error('gone'))"))
    page.run("document.getElementById('text').value = 'And?'; document.getElementById('ask').requestSubmit()")
    page.wait("document.getElementById('text').value === 'And?' && !!document.querySelector('.error')")
    assert page.run("document.querySelectorAll('article').length") == 2


def test_a_call_that_was_cut_off_is_left_out(page):
    whole = {"id": "a", "index": 0, "function": {"name": "f", "arguments": "{}"}}
    half = {"id": "b", "index": 1, "function": {"name": "g", "arguments": '{"x": '}}
    told = [{"delta": {"tool_calls": [whole, half]}, "finish_reason": "length"}]
    page.run(STREAM % (json.dumps(told), "controller.close()"))
    ask(page, "So?")
    assert page.run("[...document.querySelectorAll('.results span')].map((one) => one.textContent)") == ["Result of f"]


def test_settings_are_sent_and_kept(page, server):
    click(page, "Settings")
    assert page.run("document.getElementById('top_k').placeholder") == "40"
    for name, value in (("system", "Be brief."), ("temperature", "0.5"), ("max_tokens", "7"), ("thinking", "off")):
        field(page, name, value)
    click(page, "Save")
    talk(page, server, ("hi", "ho"))
    body = page.run("sent.at(-1)")
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (body["temperature"], body["max_tokens"], body["enable_thinking"]) == (0.5, 7, False)
    assert "top_k" not in body and "tools" not in body
    kept = json.loads(page.run("localStorage.getItem('opsin.settings')"))
    assert kept["temperature"] == 0.5 and kept["system"] == "Be brief."


@pytest.mark.parametrize("wrong", ["[", "{}", '[{"name": "x"}]'])
def test_tools_that_are_none_cannot_be_saved(page, wrong):
    click(page, "Settings")
    field(page, "tools", wrong)
    click(page, "Save")
    assert page.run("document.getElementById('settings').open")
    assert page.run("document.getElementById('tools').validationMessage")
    click(page, "Cancel")


def test_history_is_searched_opened_and_deleted(page, server):
    talk(page, server, ("about apples", "red"))
    click(page, "New")
    talk(page, server, ("about pears", "green"), ("and plums", "blue"))
    press(page, "k", modifiers=2)
    found = "[...document.querySelectorAll('#found .open')].map((one) => one.firstChild.textContent)"
    page.wait(f"{found}.length === 2")
    assert page.run(found) == ["about pears", "about apples"]
    field(page, "search", "RED about")
    page.wait(f"{found}.length === 1")
    page.run("document.querySelector('#found .open').click()")
    page.wait("!document.getElementById('history').checkVisibility()")
    assert page.run("document.querySelector('article.model .said').textContent") == "red"
    click(page, "History")
    page.wait(f"{found}.length === 2")
    click(page, "Delete", 0)
    page.wait(f"{found}.length === 1")
    assert [head["title"] for head in page.run(HEADS)] == ["about apples"]
    click(page, "Close")


def test_conversations_stand_beside_a_wide_page(page, server):
    """They are there when the page is opened, unless somebody closed them."""
    found = "[...document.querySelectorAll('#found .open')].map((one) => [one.firstChild.data, one.ariaCurrent])"
    seen = "document.getElementById('history').checkVisibility()"
    wide(page, 1100)
    talk(page, server, ("about apples", "red"))
    assert not page.run(seen)
    click(page, "History")
    page.wait(f"{found}.length === 1")
    sides = "['history', 'talk', 'ask'].map((id) => document.getElementById(id).getBoundingClientRect())"
    history, *beside = page.run(f"{sides}.map((one) => [one.left, one.right])")
    assert history[0] == 0 and all(history[1] < left and right <= 1100 for left, right in beside)
    click(page, "New")
    talk(page, server, ("about pears", "green"))
    page.wait(f"{found}.length === 2")
    assert page.run(found) == [["about pears", "true"], ["about apples", None]]
    page.run("document.querySelectorAll('#found .open')[1].click()")
    page.wait(f"{found}[1][1] === 'true'")
    assert page.run("document.querySelector('article.model .said').textContent") == "red"
    for name, stays in (("", True), ("Close", False)):
        if name:
            click(page, name)
        page.open(server.url + "/")
        page.run(LISTEN)
        page.wait("document.getElementById('model').textContent !== '…'")
        page.run("import('/page/history.js').then((history) => history.search(''))")
        page.run("extra = {}; new Promise((done) => setTimeout(done, 50))")
        assert page.run(seen) is stays
    page.run("localStorage.clear()")
    page.call("Emulation.clearDeviceMetricsOverride")


def test_conversations_are_a_drawer_on_a_narrow_page(page, server):
    seen = "document.getElementById('history').checkVisibility()"
    wide(page, 320)
    talk(page, server, ("about apples", "red"))
    page.run("document.getElementById('open-history').focus()")
    press(page, "Enter")
    page.wait(seen)
    assert page.run("document.activeElement.id") == "search"
    assert page.run("document.getElementById('open-history').ariaExpanded") == "true"
    assert page.run("document.documentElement.scrollWidth") <= 320
    right = "Math.max(...[...document.querySelectorAll('#history *')].map((one) => one.getBoundingClientRect().right))"
    page.run("document.querySelector('#history details').open = true")
    assert page.run(right) <= 320
    press(page, "Escape")
    page.wait(f"!{seen}")
    assert page.run("document.activeElement.id") == "open-history"
    page.wait("document.getElementById('open-history').ariaExpanded === 'false'")
    wide(page, 768)
    for _ in range(2):  # a pointer opens it, and closes it again
        point(page, "open-history")
    page.wait(f"!{seen}")
    page.call("Emulation.clearDeviceMetricsOverride")


def wide(page: Browser, width: int) -> None:
    page.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 500)


def point(page: Browser, name: str) -> None:
    """Press and let go on an element."""
    code = f"(() => {{ const box = document.getElementById('{name}').getBoundingClientRect(); "
    x, y = page.run(code + "return [box.left + box.width / 2, box.top + box.height / 2]; })()")
    for kind in ("mousePressed", "mouseReleased"):
        page.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)


def test_conversations_leave_and_come_back_as_files(page, server, tmp_path):
    with scripted(server.service.model, "**red**"):
        ask(page, "about apples")
    page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    click(page, "History")
    page.wait("!document.getElementById('export-json').disabled")
    page.run("document.querySelector('#history details').open = true")
    for text in ("This one as Markdown", "All as JSON"):
        click(page, text)
    names = {"about-apples.md", "opsin-conversations.json"}
    end = time.monotonic() + 60
    while {path.name for path in tmp_path.iterdir()} != names and time.monotonic() < end:
        time.sleep(0.05)
    assert "## You\n\nabout apples\n\n## Answer\n\n**red**" in (tmp_path / "about-apples.md").read_text()
    records = json.loads((tmp_path / "opsin-conversations.json").read_text())
    assert [record["title"] for record in records] == ["about apples"]
    page.run("import('/page/history.js').then((history) => history.clear())")
    field(page, "search", "")
    page.wait("document.querySelectorAll('#found li').length === 0")
    give = """(async (name, text) => { const files = new DataTransfer(); files.items.add(new File([text], name));
      const field = document.getElementById("import"); field.files = files.files;
      field.dispatchEvent(new Event("change")); })"""
    page.run(f"{give}('x.json', {json.dumps(json.dumps(records))})")
    page.wait("document.querySelectorAll('#found li').length === 1")
    assert page.run(HEADS)[0]["words"].startswith("about apples")
    for name, wrong in enumerate(
        ({"id": 5}, {"messages": {}}, {"messages": [{"role": "user", "content": [{"image_url": {"url": "https://x.org"}}]}]},
         {"messages": [{"role": "assistant", "content": "", "tool_calls": [{"id": "a", "function": {"name": "b"}}]}]},
         {"messages": [{"role": "assistant", "content": "", "about": {"timings": {"cache_n": "<"}}}]})
    ):  # fmt: skip
        text = json.dumps([{**records[0], **wrong}])
        page.run(f"{give}('{name}.json', {json.dumps(text)})")
        page.wait(f"document.getElementById('history-problem').textContent.startsWith('{name}.json')")
    click(page, "Close")


def test_nothing_is_kept_where_nobody_wants_it(page, server):
    click(page, "Settings")
    page.run("document.getElementById('keep').click()")
    click(page, "Save")
    talk(page, server, ("secret", "word"))
    assert page.run(HEADS) == []


def test_the_camera_gives_a_picture(page):
    page.run("document.getElementById('camera').hidden = false")
    page.run("""(async () => { const {photograph} = await import("/page/camera.js");
      photograph((files) => { window.taken = files; }, (text) => { window.taken = text; }); })()""")
    page.wait("document.getElementById('viewfinder').videoWidth > 0")
    page.run("window.tracks = document.getElementById('viewfinder').srcObject.getTracks()")
    click(page, "Take the picture")
    assert page.wait("window.taken?.[0]?.type") == "image/jpeg"
    assert page.run("createImageBitmap(taken[0]).then((image) => image.width)") > 0
    assert page.run("document.getElementById('viewfinder').srcObject === null")
    assert page.run("tracks.map((track) => track.readyState)") == ["ended"]


def test_all_of_it_goes_by_keyboard(page, server):
    with scripted(server.service.model, "yes"):
        write(page, "Is it so?")
        press(page, "Enter", modifiers=8)
        write(page, "Really?")
        press(page, "Enter")
        assert answer(page) == "yes"
    assert sent(page) == [("user", "Is it so?\nReally?")]
    press(page, "ArrowUp")
    assert page.run("document.getElementById('text').value") == "Is it so?\nReally?"
    press(page, "Escape")
    assert page.run("document.getElementById('text').value") == ""
    reached = []
    for _ in range(12):
        press(page, "Tab")
        reached.append(page.run("document.activeElement.innerText || document.activeElement.tagName"))
    assert {"Ask", "History", "Settings", "New", "Edit", "Copy", "Ask again"} <= set(reached)
    press(page, "o", modifiers=2 | 8)
    assert page.run("document.querySelectorAll('article').length") == 0
    assert page.run("document.activeElement.id") == "text"
    talk(page, server, ("Another", "yes"))
    press(page, "k", modifiers=2)
    page.wait("document.querySelectorAll('#found li').length === 2")
    write(page, "really")
    page.wait("document.querySelectorAll('#found li').length === 1")
    press(page, "Tab")
    press(page, "Enter")
    page.wait("!document.getElementById('history').checkVisibility()")
    assert page.run("document.querySelector('article.person .said').textContent") == "Is it so?\nReally?"


def test_all_files_of_the_page_are_asked_for_by_it(server):
    """None is left behind, and no file is missing."""
    folder = Path(__file__).parents[2] / "src" / "opsin" / "serve" / "page"
    text = "".join(path.read_text() for path in folder.iterdir() if path.suffix in (".js", ".html"))
    for path in folder.rglob("*.*"):
        assert path.name == "index.html" or path.name in text
        if path.name != "index.html":
            assert server.ask(f"/page/{path.relative_to(folder)}").status == 200
    assert server.ask("/page/../app.py").status == 404
    assert server.ask("/page/nothing.js").status == 404
    again = server.ask("/", headers={"If-None-Match": server.ask("/").headers["etag"]})
    assert again.status == 304 and not again.body


def test_a_model_is_chosen_of_several(browser, tmp_path):
    """The first question loads it, and says so meanwhile. The page comes back to the one that was chosen."""
    files = {name: tiny_llama(tmp_path / f"{name}.gguf", seed=at) for at, name in enumerate(("ant", "bee"))}
    options, wanted, begun = Options(port=0), threading.Event(), []

    def load(name: str) -> Model:
        begun.append(name)
        wanted.wait(60)
        return opsin.load(files[name], threads=1, context=256, sequences=2)

    sources = [
        ModelSource(name, options, name, path, lambda name=name: load(name), lambda: 1) for name, path in files.items()
    ]
    with live(ModelRegistry(options, lambda: sources, most=1), options, close=True) as several:
        browser.open(several.url + "/")
        browser.run(LISTEN)
        browser.wait("document.getElementById('models').checkVisibility()")
        assert browser.run("[...document.getElementById('models').options].map((one) => one.text)") == ["ant", "bee"]
        browser.run("models = document.getElementById('models'); models.value = 'bee'; models.onchange()")
        assert begun == []  # to look at models loads none
        browser.run("document.getElementById('text').value = 'who?'; document.getElementById('ask').requestSubmit()")
        assert "loaded" in browser.wait("document.querySelector('article.working .note:not([hidden])')?.textContent")
        wanted.set()
        answer(browser)
        assert browser.run("sent.at(-1).model") == "bee"
        assert "bee" in browser.run(FOOTER) and "of 256 of the context" in browser.run(FOOTER)
        assert browser.run("models.selectedOptions[0].text") == "bee (loaded)"
        browser.open(several.url + "/")
        browser.wait("document.getElementById('models').value === 'bee'")


ENCODER = """{ const asked = fetch, models = (one) => JSON.stringify({data: [
    {id: "vectors", architecture: {input_modalities: ["text"], output_modalities: ["embeddings"]}}, ...one]});
  window.fetch = async (url, options) => url === "v1/models"
    ? new Response(models(location.hash ? [{id: "words"}] : [])) : asked(url, options); }"""


def test_a_model_that_writes_nothing_says_so_and_is_not_offered_beside_others(browser, server):
    browser.call("Page.enable")
    stub = browser.call("Page.addScriptToEvaluateOnNewDocument", source=ENCODER)["identifier"]
    browser.open(server.url + "/docs")
    browser.open(server.url + "/")
    browser.wait("document.getElementById('how').textContent.includes('embeddings')")
    browser.open(server.url + "/docs")
    browser.open(server.url + "/#several")
    browser.wait("document.getElementById('model').textContent === 'words'")
    assert not browser.run("document.getElementById('models').checkVisibility()")
    browser.call("Page.removeScriptToEvaluateOnNewDocument", identifier=stub)


def test_its_modules_are_short_say_what_they_are_and_read_no_html():
    folder = Path(__file__).parents[2] / "src" / "opsin" / "serve" / "page"
    html = r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function"
    elsewhere = r"https?://(?!www\.w3\.org/1998/Math)\w"
    for path in folder.glob("*.js"):
        text = path.read_text()
        assert text.startswith("/** "), path
        assert max(map(len, text.splitlines())) <= 120 and text.count("\n") <= 200, path
        assert not re.search(f"{html}|{elsewhere}", text), path
