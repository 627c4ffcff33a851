"""The page at /, in a headless Chromium: pictures dropped, questions asked, wrong things told. Skipped without one."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest
from browser import Browser
from page_browser import ANSWERS, answer, ask, needs_chromium, opened
from running_server import Running, running, running_sight
from waiting import wait_for

from opsin.api import Answer
from opsin.serve.keys import ApiKey

pytestmark = needs_chromium

DROP = """(async () => {
  const canvas = document.createElement("canvas");
  canvas.width = 60; canvas.height = 40;
  canvas.getContext("2d").fillRect(5, 5, 30, 30);
  const blob = await new Promise((done) => canvas.toBlob(done));
  const dropped = new DataTransfer();
  dropped.items.add(new File([blob], "a.png", {type: "image/png"}));
  window.dispatchEvent(new DragEvent("drop", {dataTransfer: dropped, bubbles: true, cancelable: true}));
})()"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_sight(tmp_path_factory.mktemp("page")) as made:
        yield made


@pytest.fixture(scope="module")
def page(server: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with opened(server.url + "/", tmp_path_factory.mktemp("chromium")) as made:
        yield made


def test_it_names_the_model(page, server):
    assert page.wait("document.getElementById('model').textContent") == server.service.name


def test_a_dropped_picture_is_asked_about(page, server):
    page.run(DROP)
    assert page.wait("document.querySelectorAll('#chosen img').length") == 1
    said = ask(page, "What is this?")
    assert page.run("document.querySelectorAll('article.person img').length") == 1
    assert said
    assert page.run("document.querySelectorAll('#chosen img').length") == 0
    counts = server.ask("/metrics").body.decode()
    assert "opsin_media_tokens_total 16" in counts
    told = page.run("document.querySelector('article.model footer').textContent")
    assert "8 written" in told and "60 × 40 looked at as 32 × 32" in told and "of 512 of the context" in told


def test_a_second_question_remembers_the_first(page):
    ask(page, "And now?")
    roles = ["user", "assistant", "user"]
    assert page.run("sent.at(-1).messages.map((message) => message.role)") == roles
    assert page.run("sent.at(-1).messages[0].content[0].type") == "image_url"
    told = page.run("[...document.querySelectorAll('article.model footer')].at(-1).textContent")
    assert "known" in told and "looked at" not in told


def test_a_picture_is_sent_once_and_named_from_then_on(page, server):
    """Where the server has forgotten it, it is sent again."""
    first, second = page.run("sent.slice(-2).map((body) => body.messages[0].content[0])")
    assert second == {"type": "image_url", "uuid": first["uuid"]} and len(first["uuid"]) == 32
    assert first["image_url"]["url"].startswith("data:image/png;base64,")
    server.service.state.files._sources.pop(("", first["uuid"]))
    ask(page, "And once more?")
    assert page.run(ANSWERS) == 3
    named, again = page.run("sent.slice(-2).map((body) => body.messages[0].content[0])")
    assert named == second and again == first
    assert page.run("document.querySelectorAll('.error').length") == 0


def test_what_is_written_never_becomes_markup(page):
    ask(page, "<img src=x onerror=window.hurt=1><b>bold</b>")
    assert page.run("document.querySelectorAll('article b').length") == 0
    assert page.run("window.hurt === undefined")


def test_an_error_is_told_and_not_remembered(page):
    page.run("document.getElementById('text').value = 'word '.repeat(3000)")
    page.run("document.getElementById('ask').requestSubmit()")
    assert "512" in page.wait("document.querySelector('.error')?.textContent")
    assert page.run(ANSWERS) == 4


def test_a_refused_question_goes_back_where_it_was_written(page):
    assert page.run("document.getElementById('text').value.startsWith('word word')")
    page.run("document.getElementById('text').value = ''")
    assert page.run("document.querySelectorAll('article.person').length") == 4


def test_what_is_no_picture_is_told(page):
    page.run(DROP.replace("image/png", "application/zip"))
    page.wait("document.querySelector('#talk').lastChild.textContent === 'a.png is neither a medium nor a text.'")
    assert page.run("document.querySelectorAll('#chosen img').length") == 0


def test_a_dropped_text_becomes_part_of_the_question(page):
    page.run("document.getElementById('text').value = 'Look:'")
    page.run(DROP.replace("[blob]", "['a\\n```\\nb\\n']").replace("image/png", "text/plain"))
    page.wait("document.getElementById('text').value === 'Look:\\n\\na.png:\\n````\\na\\n```\\nb\\n````\\n'")
    page.run("document.getElementById('text').value = ''")


def test_a_damaged_picture_is_shown_and_told_by_its_name(page):
    page.run(DROP.replace("[blob]", "['no picture']"))
    assert page.wait("document.querySelector('#chosen .unseen')?.textContent").startswith("a.png")
    assert page.run("document.querySelector('#chosen button').ariaLabel") == "Take away a.png"
    page.run("document.getElementById('ask').requestSubmit()")
    page.wait("document.querySelectorAll('.error').length === 1")
    told = page.run("document.querySelector('.error').textContent")
    assert told.startswith("a.png") and "messages[" not in told
    assert page.run("document.querySelectorAll('#chosen button').length") == 1  # it stands where it was
    page.run("document.querySelector('#chosen button').click()")


def test_a_pasted_picture_is_taken_and_may_be_taken_away(page):
    code = DROP.replace("window.dispatchEvent", "document.body.dispatchEvent")
    code = code.replace('DragEvent("drop", {dataTransfer', 'ClipboardEvent("paste", {clipboardData')
    page.run(code)
    assert page.wait("document.querySelectorAll('#chosen img').length") == 1
    page.run("document.querySelector('#chosen button').click()")
    assert page.run("document.querySelectorAll('#chosen img').length") == 0


def test_esc_stops_an_answer_and_what_came_is_kept(page, server, monkeypatch):
    right = Answer.__next__
    monkeypatch.setattr(Answer, "__next__", lambda self: time.sleep(0.05) or right(self))
    page.run("extra.max_tokens = 300")
    page.run("document.getElementById('text').value = 'Go on'; document.getElementById('ask').requestSubmit()")
    page.wait("document.getElementById('go').textContent === 'Stop'")
    page.wait("document.querySelector('article.working .said')?.textContent")
    page.run("document.dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape', bubbles: true}))")
    assert answer(page)
    told = page.run("[...document.querySelectorAll('article.model footer')].at(-1).textContent")
    assert "stopped" in told and "tokens read" in told and "written" in told and "of 512 of the context" in told
    wait_for(lambda: not server.service.model.engine._everybody())


def test_everything_that_can_be_used_has_a_name_and_takes_the_keyboard(page):
    """As Chromium tells it to screen readers."""
    page.call("Accessibility.enable")
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    used = {"button", "textbox", "link", "checkbox"}
    found = [node for node in nodes if not node.get("ignored") and node["role"]["value"] in used]
    assert {"New", "Ask", "Question"} <= {node["name"]["value"] for node in found}
    for node in found:
        assert node["name"]["value"], node
        assert any(p["name"] == "focusable" and p["value"]["value"] for p in node["properties"]), node
    assert "log" in {node["role"]["value"] for node in nodes}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_can_be_read(page, scheme):
    """Contrast of at least 4.5 to 1 (WCAG 2.2, 1.4.3) for all texts."""
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    pairs = [("--ink", "--ground"), ("--quiet", "--ground"), ("--ink", "--raised"), ("--quiet", "--raised"),
             ("--ink", "--soft"), ("--on-accent", "--accent"), ("--bad", "--bad-ground")]  # fmt: skip
    for text, ground in pairs:
        dark, light = sorted(brightness(page, name) for name in (text, ground))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (scheme, text, ground)


def brightness(page, name):
    code = f"""(() => {{ const e = document.createElement("i"); e.style.color = "var({name})"; document.body.append(e);
      const c = getComputedStyle(e).color; e.remove(); return c; }})()"""
    linear = [int(part) / 255 for part in re.findall(r"\d+", page.run(code))[:3]]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in linear)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_nothing_is_wider_than_a_telephone(page):
    page.call("Emulation.setDeviceMetricsOverride", width=360, height=640, deviceScaleFactor=1, mobile=True)
    assert page.run("document.documentElement.scrollWidth") <= 360
    page.call("Emulation.clearDeviceMetricsOverride")


def test_a_script_that_got_into_the_page_does_not_run(page):
    """Nor does the browser make HTML of a text there: the page's policy holds whatever its modules do."""
    page.run("""try { const script = document.createElement("script");
      script.textContent = "window.hurt = 1"; document.body.append(script); } catch { }""")
    assert page.run("window.hurt === undefined")
    assert page.run("(() => { try { document.body.innerHTML = '<b>'; } catch (error) { return error.name; } })()")
    page.problems.clear()


def test_new_forgets(page):
    page.run("document.getElementById('new').click()")
    assert page.run("document.querySelectorAll('article').length") == 0
    assert page.run("document.getElementById('text').value") == ""


def test_a_key_is_asked_for_once_and_kept_in_memory_alone(page, server):
    """Below a prefix, too."""
    with running(lambda: server.service.model, keys=(ApiKey("secret"),), prefix="/llm") as locked:
        page.open(locked.url + "/llm/")
        assert page.run("getComputedStyle(document.body).display") == "flex"  # its style has come
        for given in ("wrong", "secret"):
            page.wait("document.getElementById('locked').open")
            page.run(f"document.getElementById('key').value = '{given}'")
            page.run("document.querySelector('#locked button[value=ok]').click()")
            page.wait("document.getElementById('key').value === ''")
        assert page.wait(f"document.getElementById('model').textContent === '{locked.service.name}'")
        assert page.run("localStorage.length + sessionStorage.length + document.cookie.length") == 0
