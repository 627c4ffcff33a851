"""Llama 3.2 Vision's text beside pictures: who looks at them, who does not, and at what cost."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import opsin
from opsin.api.row_files import restore_rows, save_rows
from opsin.cli.file_report import page, report_file
from opsin.convert.hf import convert
from opsin.engine.rows import PromptRows
from opsin.engine.sampling import Sampling
from opsin.errors import ModelError, OpsinError, RequestError
from opsin.gguf import File, NewTensor, write
from opsin.models import load_decoder
from opsin.models import mllama as family
from opsin.nn.attention import CrossAttention
from opsin.nn.meta import MetaReader
from opsin.ops.cpu import Operations
from opsin.spans import MediaSpan

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from mllama_vision_truth import MARKER, MLLAMA, ROWS, SPECIAL, TEXT, TILES, mllama_truth, processor, published  # noqa: E402
from vision_truth import distance, picture  # noqa: E402

RED, TALL = picture(60, 44), picture(40, 90, seed=1)
CROSSING = "mllama.attention.cross_attention_layers"
SAMPLING = Sampling(temperature=0.0, max_tokens=6, ignore_eos=True)


@pytest.fixture(scope="module")
def theirs():
    return published()


@pytest.fixture(scope="module")
def folder(theirs, tmp_path_factory):
    made = tmp_path_factory.mktemp("mllama")
    MLLAMA.save(theirs, made / "hf")
    convert(made / "hf", made / "model.gguf", format="f32")
    return made


@pytest.fixture(scope="module")
def ours(folder):
    with opsin.load(folder / "model.gguf", threads=2, pages="f32", context=2048, sequences=8) as model:
        yield model


def test_a_saved_conversation_about_pictures_goes_on(ours, folder, tmp_path):
    """What pictures are to rows that remember them is not in the file: a later row has them encoded once more."""
    messages = [{"role": "user", "content": ["See ", RED, " and ", TALL]}]
    first = ours.generate(ours.question(messages), SAMPLING)
    said, prompt = first.text, ours.question(messages).prompt.gone_on(first.ids)
    rows, _ = save_rows(ours, prompt, tmp_path / "rows")
    assert rows == len(prompt) - 1
    with opsin.load(folder / "model.gguf", threads=2, pages="f32", context=2048, sequences=8) as other:
        assert restore_rows(other, tmp_path / "rows").rows == rows
        again = other.generate(other.question(messages), SAMPLING)
        assert again.text == said and again.ids == first.ids
        assert again.usage.cached == again.prompt_tokens - 1
        wrong = [{"role": "user", "content": ["See ", TALL, " and ", RED]}]
        assert other.generate(other.question(wrong), SAMPLING).usage.cached < again.usage.cached


def logits(theirs, text, *images):
    inputs = processor()(text=[text], images=images or None, return_tensors="pt")
    with torch.inference_mode():
        return theirs(**inputs, use_cache=False).logits[0].numpy()


def raw(ours, text, *images):
    """A prompt of a text with markers."""
    return ours.raw([text.replace(MARKER, ours.picture_marker)], images).prompt


def test_usage_counts_what_layers_see_beside_the_prompt(ours):
    asked = ours.question([{"role": "user", "content": ["See ", RED, " and ", TALL]}])
    pictures = [ours.prepare(image) for image in (RED, TALL)]
    assert all(patches.embedded > patches.rows == 0 for patches in pictures)
    usage = ours.generate(asked, SAMPLING).usage
    assert [used.rows for used in usage.each] == [patches.embedded for patches in pictures]
    assert usage.pictures == sum(patches.embedded for patches in pictures)
    assert usage.prompt == len(asked.prompt) + usage.pictures == asked.tokens


@pytest.mark.parametrize("text", [
    f"{MARKER}What is this?",
    f"{MARKER}{MARKER}Which is older?",
    f"{MARKER}First,{MARKER} then. And now?",
])  # fmt: skip
def test_logits_equal_transformers(ours, theirs, text):
    """Its own, without the whole of Meta's rule, where a picture comes first."""
    images = [RED, TALL][: text.count(MARKER)]
    found = ours.logits(raw(ours, text, *images))
    assert distance(found, logits(theirs, text, *images)) < 1e-4
    assert answer(ours.engine.submit(raw(ours, text, *images), SAMPLING))[0] == found[-1].argmax()


def test_rows_before_the_first_picture_are_those_of_a_text_alone(ours, theirs):
    """Meta's rule. transformers adds what such a row sees of pictures that come later, and leaves out the rest."""
    before, after = "Some words first. ", " And some more."
    alone, beside = ours.logits(raw(ours, before)), ours.logits(raw(ours, f"{before}{MARKER}{after}", RED))
    assert np.array_equal(beside[: len(before)], alone)
    found = logits(theirs, f"{before}{MARKER}{after}", RED)
    assert distance(found[: len(before)], logits(theirs, before)) > 1e-2
    assert distance(alone, logits(theirs, before)) < 1e-4


def test_without_its_looking_layers_it_would_say_something_else(ours, theirs, monkeypatch):
    text = f"{MARKER}What is this?"
    wanted = logits(theirs, text, RED)
    other = ours.logits(raw(ours, text, picture(60, 44, seed=9)))
    bare = ours.logits(raw(ours, text.replace(MARKER, "")))
    assert distance(other, wanted) > 1e-2
    assert distance(bare, wanted[1:]) > 1e-2


class Counted:
    """A program that notes how many rows it computed, and how many of them remembered something."""

    def __init__(self, program):
        self.program, self.seen = program, []

    def __getattr__(self, name):
        return getattr(self.program, name)

    def run(self, **counts):
        self.seen.append((counts["rows"], counts["remembering"]))
        self.program.run(**counts)


def answer(stream):
    return [output.id for output in stream if output.id is not None]


def test_rows_of_text_cost_no_looking(ours, monkeypatch):
    counted = Counted(ours.runner.program)
    monkeypatch.setattr(ours.runner, "program", counted)
    words = answer(ours.engine.submit(raw(ours, "Only words, and no picture at all."), SAMPLING))
    assert len(words) == 6
    assert {remembering for _, remembering in counted.seen} == {0}
    counted.seen.clear()
    text = "Some words first. "
    answer(ours.engine.submit(raw(ours, f"{text}{MARKER} And more.", RED), SAMPLING))
    rows, remembering = (sum(column) for column in zip(*counted.seen, strict=True))
    assert rows - remembering == len(text)


def test_in_company_only_those_look_who_remember(ours, monkeypatch):
    prompts = [raw(ours, f"Number {n}, without pictures.") for n in range(5)]
    seeing = raw(ours, f"{MARKER}What is this?", TALL)
    alone = [answer(ours.engine.submit(prompt, SAMPLING)) for prompt in (*prompts, seeing)]
    counted = Counted(ours.runner.program)
    monkeypatch.setattr(ours.runner, "program", counted)
    streams = [ours.engine.submit(prompt, SAMPLING) for prompt in (*prompts, seeing)]
    assert [answer(stream) for stream in streams] == alone
    assert sum(remembering for _, remembering in counted.seen) <= len(seeing) + SAMPLING.max_tokens
    assert any(remembering and rows > remembering for rows, remembering in counted.seen)


def test_a_marker_that_people_write_is_text(ours):
    prompt = ours.chat_prompt([{"role": "user", "content": [f"What does {MARKER} mean?", RED]}])
    known = [id for span in prompt.spans if not isinstance(span, MediaSpan) for id in span.ids]
    assert known.count(SPECIAL) == 1
    assert len([span for span in prompt.spans if isinstance(span, MediaSpan)]) == 1
    assert MARKER in ours.tokenizer.decode([id for id in known if id != SPECIAL])


def test_a_system_message_stands_beside_pictures(ours):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": ["What is this?", RED]}]
    prompt = ours.chat_prompt(messages)
    same = raw(ours, f"<system>Be brief.\n<user>What is this?{MARKER}\n<assistant>", RED)
    assert prompt == same


def test_ids_that_stand_for_pictures_are_read_and_never_given(ours):
    assert ours.runner.decoder.vocabulary == TEXT["vocab_size"] == SPECIAL
    assert ours.runner.decoder.ids == SPECIAL + 8
    assert ours.logits([SPECIAL, SPECIAL + 7]).shape == (2, SPECIAL)
    with pytest.raises(RequestError, match=str(SPECIAL + 8)):
        ours.logits([SPECIAL + 8])


def test_a_picture_comes_back_as_embeddings(ours):
    made = ours.encode(RED)
    assert made.shape == (TILES * ROWS, TEXT["hidden_size"])
    text = f"{MARKER}What is this?"
    assert np.array_equal(ours.logits(raw(ours, text, made.placed())), ours.logits(raw(ours, text, RED)))


def rewritten(folder, path, keys=None, tensors=None):
    """The file with other keys and tensors; None leaves one out."""
    with File.open(folder / "model.gguf") as file:
        known = {**file.typed, **(keys or {})}
        held = {name: file.copy_tensor(name) for name in file.tensors} | {
            name: None if values is None else NewTensor.of(name, values) for name, values in (tensors or {}).items()
        }
        kept = [tensor for tensor in held.values() if tensor is not None]
        return write(path, {key: value for key, value in known.items() if value is not None}, kept)[0]


def vector(*values):
    return np.float32(values)


@pytest.mark.parametrize(
    ("keys", "tensors", "said"),
    [
        ({CROSSING: np.int32([1, 6])}, {}, r"cross_attention_layers is \[1, 6\]"),
        ({CROSSING: np.int32([1, 1])}, {}, r"cross_attention_layers is \[1, 1\]"),
        ({CROSSING: np.int32([])}, {}, "cross_attention_layers is"),
        ({CROSSING: np.int32([*range(6)])}, {}, "of 6 layers"),
        ({CROSSING: np.int32([1, 2])}, {}, r"blk\.2\.cross_attn_q_proj"),
        ({CROSSING: None}, {}, "cross_attention_layers"),
        ({"mllama.block_count": 5, CROSSING: np.int32([1])}, {}, "holds more than its 5 layers"),
        ({"mllama.block_count": 7}, {}, r"blk\.6\.attn_norm"),
        ({"mllama.block_count": 2**31 - 1}, {}, r"blk\.6\.attn_norm"),
        ({}, {"blk.1.cross_attn_attn_gate": vector(1, 2)}, "cross_attn_attn_gate has 2 values"),
        ({}, {"blk.1.cross_attn_mlp_gate": None}, "cross_attn_mlp_gate"),
        ({}, {"blk.5.cross_attn_q_norm.weight": vector(*[1] * 15)}, "cross_attn_q_norm.weight has 15 values"),
        ({}, {"blk.5.cross_attn_k_proj.weight": np.zeros((31, 64), np.float32)}, "cross_attn_k_proj.weight makes 31"),
        ({}, {"output.weight": np.zeros((266, 64), np.float32)}, "output.weight has 266 rows"),
    ],
)
def test_a_file_whose_parts_do_not_go_together_is_refused(folder, tmp_path, keys, tensors, said):
    path = rewritten(folder, tmp_path / "bad.gguf", keys, tensors)
    with File.open(path) as file, pytest.raises(OpsinError, match=said) as caught:
        load_decoder(file, MetaReader(file, vectors=True))
    assert isinstance(caught.value, ModelError | OpsinError)


def told(change):
    """Of what each row remembers: (first, last), int32 [rows]."""

    def apply(patch):
        right = PromptRows.remembered
        patch.setattr(PromptRows, "remembered", lambda rows, places: change(*right(rows, places)))

    return apply


def gates(change):
    return lambda patch: patch.setattr(family, "math", SimpleNamespace(tanh=change))


def attention(name, wrong):
    """Of one method of the layers that look: wrong(right, attention, *arguments, **options)."""

    def apply(patch):
        right = getattr(CrossAttention, name)
        patch.setattr(CrossAttention, name, lambda part, *args, **options: wrong(right, part, *args, **options))

    return apply


class Plain:
    """A norm that does nothing."""

    def __call__(self, x, eps):
        return x


def without(name):
    def wrong(right, part, *args, **options):
        other = CrossAttention.__new__(CrossAttention)
        vars(other).update({**vars(part), name: Plain()})
        return right(other, *args, **options)

    return wrong


def looking_last(right, part, x, kept, **options):
    return right(part, x, kept, **{**options, "layer": 1 - options["layer"]})


MUTANTS = {
    "nobody looks": lambda patch: patch.setattr(Operations, "put", lambda ops, x, y, places: x),
    "gates as they lie in the file": gates(lambda value: value),
    "no gates": gates(lambda value: 1.0),
    "queries are not normalised": attention("__call__", without("q_norm")),
    "keys are not normalised": attention("remember", without("k_norm")),
    "layers look at what is another's": attention("__call__", looking_last),
    "scores are not scaled": attention("__call__", lambda right, part, x, kept, **options: right(
        part, x, kept, **{**options, "heads": replace(options["heads"], scale=1.0)}
    )),
    "rows before see the picture": told(lambda first, last: (np.zeros_like(first), np.full_like(last, last.max()))),
    "a row sees the picture right before it alone": told(
        lambda first, last: (np.maximum(first, last - ROWS), last)
    ),
    "the last row of a picture is not seen": told(lambda first, last: (first, np.maximum(first, last - 1))),
    "eps of 0.3": attention("__call__", lambda right, part, x, kept, **options: right(
        part, x, kept, **{**options, "eps": 0.3}
    )),
}  # fmt: skip


@pytest.mark.parametrize("mutant", [None, *MUTANTS])
def test_mutant_is_seen(folder, monkeypatch, mutant):
    if mutant is not None:
        MUTANTS[mutant](monkeypatch)
    text, images = f"Say: {MARKER}{MARKER}Which is older?", (RED, picture(20, 22))
    with opsin.load(folder / "model.gguf", threads=2, pages="f32", context=256, sequences=1) as wrong:
        found = distance(wrong.logits(raw(wrong, text, *images)), logits(mllama_truth(), text, *images))
    assert found < 1e-4 if mutant is None else found > 1e-3


def test_what_a_picture_takes_beside_the_text_is_told(folder):
    with File.open(folder / "model.gguf") as file:
        report = report_file(file)
    rows = TILES * ROWS
    assert report.problem is None and report.vision.problem is None
    assert report.vision.memory_rows == rows
    assert report.memory_row_bytes["f16"] == 2 * 2 * 2 * 16 * 2  # layers, keys and values, heads, width, bytes
    lines = [line.split() for line in page(report).splitlines()]
    assert ["beside", str(rows), "rows", "for", "the", "largest", "picture"] in lines
    assert any(line[:2] == ["a", "picture"] and line[5:6] == ["f16"] and str(rows) in line for line in lines)
