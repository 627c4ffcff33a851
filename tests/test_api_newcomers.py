"""What newcomers to the Python surface try: names they look for, types they give, things that look like others."""

from __future__ import annotations

import inspect
import io
import pydoc
import re
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest
from PIL import Image
from tiny_sight import tiny_pair

import opsin
from opsin.api.sampling_options import SamplingOptions


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return tiny_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def model(pair):
    with opsin.load(pair[0], threads=1, context=256, sequences=2) as made:
        yield made


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, and the home of whoever runs this, with pictures in it."""
    for name in ("scene.png", "my scene.PNG", "noise"):
        Image.new("RGB", (40, 30), "red").save(tmp_path / name, "PNG")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


# Names


def test_what_is_public_is_shown():
    shown = {"load", "Model", "Sampling", "Answer", "Embeddings", "Patches", "OpsinError", "RequestError", "FileError"}
    assert shown <= set(dir(opsin)) == set(opsin.__all__) | {n for n in dir(opsin) if n.startswith("__")}
    assert all(getattr(opsin, name) is not None for name in opsin.__all__)
    page = pydoc.render_doc(opsin, renderer=pydoc.plaintext)
    for line in (r"class Model\(", r"class Sampling\(", r"class Answer\(", r"class Embeddings\(", r"load\(\s*path"):
        assert re.search(f"\n    {line}", page), line  # Python 3.13 breaks lines of arguments
    with pytest.raises(AttributeError, match="no attribute 'Modell'"):
        opsin.Modell  # noqa: B018


def test_looking_at_the_names_loads_nothing_heavy():
    code = "import sys, opsin; dir(opsin); print([m for m in ('numpy', 'llvmlite', 'jinja2') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_all_that_is_shown_says_what_it_is_in_a_line(model):
    image = Image.new("RGB", (40, 30))
    patches = model.prepare(image)
    rows = patches.rows
    assert repr(model) == "<Model 'model.gguf': sees, context 256>"
    assert repr(patches).startswith(f"<Patches: {rows} rows in 1 spans, grid ")
    assert ", picture 40 x 30, seen at " in repr(patches)
    assert repr(model.encode(patches)).startswith(f"<Embeddings: float32 [{rows}, 64] of <Patches: {rows} rows in ")
    question = model.question([{"role": "user", "content": [image, "my secret" * 9]}])
    assert repr(question) == f"<Question: {len(question.prompt)} tokens, 1 pictures>"
    assert repr(question.prompt) == f"<Prompt: {len(question.prompt)} tokens in 3 spans>"


def test_a_model_that_only_sees_says_so(pair):
    with opsin.load(pair[1], threads=1) as model:
        assert repr(model) == "<Model 'mmproj.gguf': sees, which writes nothing>"


# Types

NEWCOMER = """
from io import BytesIO
from pathlib import Path
import numpy as np
import opsin

model: opsin.Model = opsin.load(Path("model.gguf"), context=64)
paths: list[Path] = [Path("a.png"), Path("b.png")]
many: list[opsin.Embeddings] = model.encode(paths)
one: opsin.Embeddings = model.encode("a.png")
also: list[opsin.Embeddings] = model.encode((np.zeros((4, 4)), b"..."))
answer: opsin.Answer = model.chat("Hi", max_tokens=3, seed=None)
model.chat({"role": "user", "content": "Hi"})
history: list[dict[str, str]] = [{"role": "user", "content": "Hi"}]
model.chat(history, stop=("END",), temperature=0)
model.count(({"role": "user", "content": [Path("a.png"), "What?"]},))
model.generate(model.question("Hi"), opsin.Sampling(top_k=3))
model.logits(tuple(model.tokenize("Hi")))
text: str = answer.text + model.complete("Hi", logprobs=2).text
model.chat("Hi", max_token=3)  # error: call-arg
model.chat("Hi", temperature="hot")  # error: arg-type
model.complete("Hi", stop=[3])  # error: list-item
model.complete(5)  # error: arg-type
model.chat(5)  # error: arg-type
model.detokenize("ids")  # error: arg-type
model.encode(5)  # error: call-overload
answer.txt  # error: attr-defined
"""


def test_types_say_what_a_newcomer_may_write(tmp_path):
    script = tmp_path / "newcomer.py"
    script.write_text(NEWCOMER)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", script]
    said = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1]).stdout
    errors = [line for line in said.splitlines() if ": error:" in line]
    wanted = [(n, line) for n, line in enumerate(NEWCOMER.splitlines(), 1) if "# error: " in line]
    assert [(int(line.split(":")[1]), line.rpartition("[")[2][:-1]) for line in errors] == [
        (number, line.rpartition("# error: ")[2]) for number, line in wanted
    ], said


def test_keywords_are_those_of_sampling():
    assert list(get_type_hints(SamplingOptions).items()) == list(get_type_hints(opsin.Sampling).items())


def test_no_public_function_asks_for_a_list_or_a_dict():
    methods = [f for name, f in inspect.getmembers(opsin.Model, inspect.isfunction) if not name.startswith("_")]
    for function in (opsin.load, *methods):
        taken = [str(p.annotation) for p in inspect.signature(function).parameters.values()]
        assert not [a for a in taken if "list[" in a or "dict[" in a], function


# Pictures


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("scene.png", "pathlib.Path('scene.png')"),
        ("./pictures/missing.JPEG", "pathlib.Path"),
        ("~/scene.png", "pathlib.Path"),
        ("my scene.PNG", "pathlib.Path"),
        ("C:\\photos\\a.jpg", "pathlib.Path"),
        ("https://example.org/a.png?size=3", "image_url"),
        ("file:///tmp/a.webp", "image_url"),
        ("data:image/png;base64," + "A" * 1000, "image_url"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_a_string_among_parts_that_reads_like_a_picture_is_refused(model, text, remedy):
    for ask in (model.chat, model.count, model.write, model.question):
        with pytest.raises(opsin.RequestError) as caught:
            ask([{"role": "user", "content": [text, "How many things are there?"]}])
        assert str(caught.value).startswith("messages[0].content[0] is the text ")
        assert remedy in caught.value.hint and '"type": "text"' in caught.value.hint
        assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "text", ["What is a .png?", "Is scene.png red", "noise", "see a.png\nb.png", "png", ".", "a.pngs", "of a b.png"]
)
@pytest.mark.usefixtures("folder")
def test_other_strings_among_parts_are_texts(model, text):
    assert model.write([{"role": "user", "content": [text]}]) == model.write(text)
    named = [{"role": "user", "content": [{"type": "text", "text": "scene.png"}]}]
    assert model.write(named) == model.write("scene.png")


def test_a_picture_comes_as_a_path_or_bytes(model, folder):
    data = (folder / "scene.png").read_bytes()
    wanted = model.prepare(data)
    for source in ("scene.png", Path("scene.png"), memoryview(data), bytearray(data)):
        assert model.prepare(source) == wanted, source
    ask = [{"role": "user", "content": [Path("scene.png"), "?", data]}]
    assert [use.rows for use in model.question(ask).pictures] == [wanted.rows] * 2


def test_a_picture_comes_from_an_open_file(model, folder):
    data = (folder / "scene.png").read_bytes()
    wanted = model.prepare(data)
    with (folder / "scene.png").open("rb") as file:
        for source in (Path("~/scene.png"), "~/scene.png", io.BytesIO(data), file):
            assert model.prepare(source) == wanted, source
    assert model.question([{"role": "user", "content": [io.BytesIO(data)]}]).pictures[0].rows == wanted.rows


def test_a_home_folder_is_found_in_paths_of_models(pair, monkeypatch):
    monkeypatch.setenv("HOME", str(pair[0].parent))
    with opsin.load("~/model.gguf", mmproj="~/mmproj.gguf", threads=1, context=64) as model:
        assert model.has_vision and model.path == pair[0]
    with pytest.raises(opsin.FileError, match="~nobody-of-this-name"):
        opsin.load("~nobody-of-this-name/model.gguf")
