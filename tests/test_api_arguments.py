"""Values of wrong types in the Python surface: each public method tells what it wants, and none fails inside."""

from __future__ import annotations

import inspect
from typing import get_type_hints

import numpy as np
import pytest
from PIL import Image
from tiny_sight import tiny_pair

import opsin
from opsin.api.picture_options import PictureOptions
from opsin.api.reply_keywords import ChatOptions


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path, _ = tiny_pair(tmp_path_factory.mktemp("pair"))
    with opsin.load(path, threads=1, context=256, sequences=2) as made:
        yield made


def wrong():
    """What nobody should meet inside; new ones each time, since iterators run out."""
    many = [["x", 5], [object()], {"a": 1}, {1}, iter(()), np.zeros((2, 2)), np.array(5), "no/such", [[]], (), "", True]
    return [5, -1, 1.5, float("nan"), 10**30, None, b"x", object(), int, [None], [1.5], [True], ["\ud800"], *many]


def loaded(model, **options):
    opsin.load(**({"path": model.path, "threads": 1, "context": 64} | options)).close()


OPTIONS = (
    "path",
    "mmproj",
    "vision",
    "threads",
    "context",
    "pages",
    "sequences",
    "states",
    "guesses",
    "draft",
    "rules",
    "limits",
    "device",
    "notice",
    "verify",
    "budget",
    "template",
    "media_cache",
)
# Each public method, called with one value in the place of something that it asks for.
ENTRANCES = {
    "tokenize": lambda model, value: model.tokenize(value),
    "detokenize": lambda model, value: model.detokenize(value),
    "prepare": lambda model, value: model.prepare(value),
    "prepare steps": lambda model, value: model.prepare(Image.new("RGB", (8, 8)), steps=value),
    **{
        f"prepare {name}": lambda model, value, name=name: model.prepare(Image.new("RGB", (8, 8)), **{name: value})
        for name in get_type_hints(PictureOptions)
    },
    "encode": lambda model, value: model.encode(value),
    "encode several": lambda model, value: model.encode([value, value]),
    "question": lambda model, value: model.question(value),
    "question message": lambda model, value: model.question([value]),
    "question content": lambda model, value: model.question([{"role": "user", "content": value}]),
    "question part": lambda model, value: model.question([{"role": "user", "content": [value]}]),
    "question budget": lambda model, value: model.question("Hi", budget=value),
    "question detail": lambda model, value: model.question(
        [{"role": "user", "content": [{"type": "image", "image": Image.new("RGB", (8, 8)), "detail": value}]}]
    ),
    "question role": lambda model, value: model.question([{"role": value, "content": "Hi"}]),
    "question url": lambda model, value: model.question(
        [{"role": "user", "content": [{"type": "image_url", "image_url": value}]}]
    ),
    "write": lambda model, value: model.write(value),
    "raw": lambda model, value: model.raw(value),
    "raw budget": lambda model, value: model.raw(["Hi"], budget=value),
    "raw piece": lambda model, value: model.raw([value]),
    "raw pictures": lambda model, value: model.raw([model.picture_marker], value),
    "chat_prompt": lambda model, value: model.chat_prompt(value),
    "count": lambda model, value: model.count(value),
    "count budget": lambda model, value: model.count("Hi", budget=value),
    "chat": lambda model, value: model.chat(value, max_tokens=1),
    "chat stop": lambda model, value: model.chat("Hi", stop=value, max_tokens=1),
    **{
        f"chat {name}": lambda model, value, name=name: model.chat("Hi", **{"max_tokens": 1, name: value})
        for name in get_type_hints(ChatOptions)
    },
    "chat schema": lambda model, value: model.chat("Hi", schema=value, max_tokens=1),
    "chat grammar": lambda model, value: model.chat("Hi", grammar=value, max_tokens=1),
    "complete": lambda model, value: model.complete(value, max_tokens=1),
    "generate": lambda model, value: model.generate(value, opsin.Sampling(max_tokens=1)),
    "generate grammar": lambda model, value: model.generate(
        model.question("Hi"), opsin.Sampling(max_tokens=1), grammar=value
    ),
    "generate sampling": lambda model, value: model.generate(model.question("Hi"), value),
    "logits": lambda model, value: model.logits(value),
    "prompt_logprobs": lambda model, value: model.prompt_logprobs(value),
    "prompt_logprobs most": lambda model, value: model.prompt_logprobs([1, 2], value),
    "embed": lambda model, value: model.embed(value),
    "embed one of several": lambda model, value: model.embed(["Hi", value]),
    "embed pooling": lambda model, value: model.embed("Hi", pooling=value),
    "embed dimensions": lambda model, value: model.embed("Hi", dimensions=value),
    "embedding_prompt": lambda model, value: model.embedding_prompt(value),
    "content": lambda model, value: model.content(value),
    "content part": lambda model, value: model.content([value]),
    "check_dimensions": lambda model, value: model.check_dimensions(value),
    "rerank": lambda model, value: model.rerank(value, ["Hi"]),
    "rerank documents": lambda model, value: model.rerank("Hi", value),
    "ranking_prompts": lambda model, value: list(model.ranking_prompts("Hi", value)),
    "scores": lambda model, value: model.scores(value),
    "transcribe": lambda model, value: model.transcribe(value),
    "trace": lambda model, value: model.trace(value, ("norm",)),
    "trace taps": lambda model, value: model.trace([1], value),
    "trace edits": lambda model, value: model.trace([1], ("norm",), value),
    "trace edit": lambda model, value: model.trace([1], ("norm",), {"norm": value}),
    **{f"load {name}": lambda model, value, name=name: loaded(model, **{name: value}) for name in OPTIONS},
}


def test_every_public_method_is_walked():
    methods = inspect.getmembers(opsin.Model, inspect.isfunction)
    taking = {name for name, f in methods if not name.startswith("_") and len(inspect.signature(f).parameters) > 1}
    assert taking <= {name.split()[0] for name in ENTRANCES}
    assert set(OPTIONS) | {"config"} == set(inspect.signature(opsin.load).parameters)


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_a_value_of_a_wrong_type_is_told_and_never_met_inside(model, entrance):
    refused, failed = 0, []
    for value in wrong():
        try:
            ENTRANCES[entrance](model, value)
        except opsin.OpsinError as error:
            refused += 1
            if (error.status != 400 and not isinstance(error, opsin.FileError)) or len(str(error)) > 600:
                failed.append(f"{value!r:.30}: {error!r:.200}")
        except TypeError as error:
            if value is not int or entrance != "trace edit":  # what a person's own function raises is told as it is
                failed.append(f"{value!r:.30}: {error!r:.200}")
        except Exception as error:  # noqa: BLE001 - whatever it is, it should not have been met
            failed.append(f"{value!r:.30}: {error!r:.200}")
    assert not failed
    assert refused >= 5 or entrance == "load vision"
    assert model.complete("Hi", max_tokens=1, temperature=0).text is not None
