"""Whole conversations with pictures: the logits of converted pairs equal those of the classes they were saved from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import opsin
from opsin.convert.hf import convert
from opsin.engine import scoring
from opsin.engine.sampling import Sampling
from opsin.spans import MediaSpan, Prompt

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from llava_onevision_truth import StillProcessor as OneConversation  # noqa: E402
from PIL import Image  # noqa: E402
from truths import TOWERS  # noqa: E402
from vision_truth import distance, picture, written  # noqa: E402

RED, TALL, WIDE = picture(60, 44), picture(40, 90, seed=1), picture(120, 41, seed=2)
CONVERSATIONS = {
    "no picture": [["Nothing to see here, only words."]],
    "one picture": [["What is this? ", RED, " Say it."]],
    "three pictures among texts": [["First ", RED, " then", TALL, "."], ["And this?", WIDE]],
    "two pictures side by side": [[TALL, RED, "Which is older?"]],
}


@pytest.fixture(scope="module", params=TOWERS)
def both(request, tmp_path_factory):
    """transformers' processor and model, and ours, converted from it."""
    truth = TOWERS[request.param]
    folder, theirs = tmp_path_factory.mktemp(request.param.replace(".", "_")), truth.make()
    truth.save(theirs, folder / "hf")
    convert(folder / "hf", folder / "model.gguf", mmproj=folder / "mmproj.gguf", format="f32")
    with opsin.load(folder / "model.gguf", threads=2, pages="f32", context=2048, sequences=8) as ours:
        yield truth.processor(), theirs, truth.marker, ours


def prompt(ours, conversation):
    return ours.chat_prompt([{"role": "user", "content": parts} for parts in conversation])


def expected(both, conversation):
    """Ids and logits of transformers."""
    processor, theirs, marker, _ = both
    images = [part for parts in conversation for part in parts if isinstance(part, Image.Image)]
    given = [images] if type(processor) is OneConversation else images  # whose processor tells lists of lists apart
    inputs = processor(text=[written(conversation, marker)], images=given if images else None, return_tensors="pt")
    if not images:
        inputs.pop("token_type_ids", None)
    with torch.inference_mode():
        return inputs["input_ids"][0].tolist(), theirs(**inputs, use_cache=False).logits[0].numpy()


def ids_of(given):
    """Ids of a prompt; None in rows of pictures."""
    return [i for span in given.spans for i in ([None] * len(span) if isinstance(span, MediaSpan) else span.ids)]


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_logits_equal_transformers(both, name):
    ours = both[-1]
    ids, theirs = expected(both, CONVERSATIONS[name])
    made = prompt(ours, CONVERSATIONS[name])
    assert len(made) == len(ids)
    assert all(a == b for a, b in zip(ids_of(made), ids, strict=True) if a is not None)
    assert distance(ours.logits(made), theirs) < 1e-4


def test_the_pictures_matter(both):
    ours = both[-1]
    first = ours.logits(prompt(ours, [["What is this? ", RED, " Say it."]]))
    other = ours.logits(prompt(ours, [["What is this? ", picture(60, 44, seed=9), " Say it."]]))
    assert distance(first[-1:], other[-1:]) > 1e-2


def score(ours, given, sizes):
    """Logits of a prompt that is computed in steps of these sizes."""
    return scoring.score(ours.engine, ours.runner, given, sizes)


@pytest.mark.parametrize("size", [1, 7, 64])
def test_chunks_give_the_same_bits(both, size):
    ours = both[-1]
    given = prompt(ours, CONVERSATIONS["three pictures among texts"])
    assert np.array_equal(score(ours, given, [size] * (len(given) // size + 1)), ours.logits(given))


def submit(ours, given):
    return ours.engine.submit(given, Sampling(temperature=0.0, max_tokens=6, ignore_eos=True, logprobs=5))


def told(stream):
    """Ids of an answer, each with the log-probabilities of the likeliest."""
    return [(piece.id, piece.logprobs) for piece in stream]


def test_answers_in_company_and_after_a_prefix_are_those_alone(both):
    """Their probabilities, too, to the bit."""
    ours = both[-1]
    prompts = [prompt(ours, conversation) for conversation in CONVERSATIONS.values()]
    alone = [told(submit(ours, given)) for given in prompts]
    again = [told(submit(ours, given)) for given in prompts]
    streams = [submit(ours, given) for given in prompts * 2]
    assert again == alone
    assert [told(stream) for stream in streams] == alone * 2
    assert all(len(said) == 6 and all(len(known.likeliest) == 5 for _, known in said) for said in alone)


def test_answers_follow_transformers(both):
    """The greedy answer's ids are those of the largest logits when they are written out."""
    ours, given = both[-1], prompt(both[-1], CONVERSATIONS["one picture"])
    ids = [id for id, _ in told(submit(ours, given))]
    whole = Prompt.of([*given.spans, ids])
    assert ours.logits(whole)[len(given) - 1 : -1].argmax(-1).tolist() == ids


def spans_changed(change):
    """Of those that stand among the rows."""

    def apply(given):
        return Prompt.of([change(span) if isinstance(span, MediaSpan) and span.rows else span for span in given.spans])

    return apply


def exchanged(given):
    """The first picture's rows in the place of the last one's, and the other way round."""
    spans = list(given.spans)
    first, *_, last = [i for i, span in enumerate(spans) if isinstance(span, MediaSpan)]
    spans[first], spans[last] = spans[last], spans[first]
    return Prompt.of(spans)


def turned(span):
    high, wide = span.grid
    return replace(span, grid=(wide, high))


def planar_changed(change):
    """Of spans whose rows lie in a plane of positions."""
    return spans_changed(lambda span: change(span) if span.positions != span.rows else span)


MUTANTS = {
    "pictures are exchanged": exchanged,
    "rows of a picture do not see each other": spans_changed(lambda span: replace(span, atomic=False)),
    "rows of a picture see each other": spans_changed(lambda span: replace(span, atomic=True)),
    "no positions of rows and columns": planar_changed(lambda span: replace(span, grid=None, positions=span.rows)),
    "rows and columns are exchanged": planar_changed(turned),
    "text after a picture is one position late": planar_changed(
        lambda span: replace(span, positions=span.positions + 1)
    ),
    "every part of a picture shows its first rows": spans_changed(lambda span: replace(span, first=0)),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutant_is_seen(both, mutant):
    name = "two pictures side by side" if mutant == "pictures are exchanged" else "one picture"
    _, theirs = expected(both, CONVERSATIONS[name])
    right = prompt(both[-1], CONVERSATIONS[name])
    given = MUTANTS[mutant](right)
    if given == right:
        pytest.skip("nothing is otherwise in this family")
    ours = both[-1].logits(given)
    assert ours.shape != theirs.shape or distance(ours, theirs) > 1e-3


def test_missing_markers_are_seen(both):
    ours = both[-1]
    ids, _ = expected(both, CONVERSATIONS["one picture"])
    patches = ours.prepare(RED)
    bare = prompt(ours, [["What is this? ", replace(patches, parts=patches.spans), " Say it."]])
    assert (len(bare) == len(ids)) == (not patches.markers)
