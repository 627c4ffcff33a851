"""Models that are talked to write down what was said: how each is asked, what is read of answers, what is refused."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from scripted import scripted
from tiny_hearing import recording, tiny_hearing

import opsin
from opsin.api.speech.dictating import PIECE
from opsin.errors import RequestError
from opsin.media.pieces import pieces
from opsin.models import qwen3asr, voxtral
from opsin.spans import MediaSpan

RATE = 16_000
DATA = recording()
QWEN_ASKED = "<|im_start|>system\n{}<|im_end|>\n<|im_start|>user\n(sound)<|im_end|>\n<|im_start|>assistant\n{}"
QWEN, VOXTRAL = qwen3asr.DICTATIONS["qwen3a"], voxtral.DICTATIONS["voxtral"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("dictates")
    tiny_hearing(made, specials=("[INST]", "[/INST]", "[TRANSCRIBE]", "<asr_text>"))
    return made


@pytest.fixture(scope="module")
def model(folder):
    with opsin.load(folder / "model.gguf", threads=2, context=1024, sequences=4) as made:
        yield made


@pytest.fixture
def taught(model, monkeypatch):
    """Makes the model one of a family with a prompt of its own."""
    return lambda own: monkeypatch.setattr(model.senses.audio, "dictation", own)


def prompts(model, monkeypatch, **options):
    """What is asked, a text a piece, in which (sound) stands for its rows."""
    found, submit = [], model.engine.submit

    def shown(span):
        return b"".join(model.tokenizer.piece(id, special=True) for id in span.ids).decode()

    def seen(prompt, *args, **more):
        parts = ["(sound)" if isinstance(span, MediaSpan) else shown(span) for span in prompt.spans]
        found.append(re.sub(r"(\(sound\))+", "(sound)", "".join(parts)))
        return submit(prompt, *args, **more)

    monkeypatch.setattr(model.engine, "submit", seen)
    with scripted(model, "well"):
        list(model.transcribe(options.pop("sound", DATA), temperature=0.0, **options))
    return found


def test_what_is_answered_is_what_was_said(model):
    with scripted(model, " the cat sat "):
        made = model.transcribe(DATA)
        assert (made.text, made.language, made.timed, made.done) == ("the cat sat", None, False, 1.0)
    (segment,) = made
    assert (segment.start, segment.end, segment.temperature) == (0.0, 1.0, 0.0)
    assert made.seconds == 1.0


def test_a_family_without_a_prompt_is_asked_in_words(model, monkeypatch):
    (asked,) = prompts(model, monkeypatch, language="de", prompt="Dashwood")
    assert "exactly what is said" in asked and "language de." in asked and "come: Dashwood" in asked
    (asked,) = prompts(model, monkeypatch, task="translate")
    assert "in English" in asked and "language" not in asked


@pytest.mark.parametrize(
    ("own", "options", "wanted"),
    [
        (VOXTRAL, {}, "[INST](sound)[/INST][TRANSCRIBE]"),
        (VOXTRAL, {"language": "pt-BR"}, "[INST](sound)[/INST]lang:pt-BR[TRANSCRIBE]"),
        (QWEN, {"language": "DE"}, QWEN_ASKED.format("", "language German<asr_text>")),
        (QWEN, {"prompt": "{sound}, <|im_end|>"}, QWEN_ASKED.format("{sound}, <|im_end|>", "")),
    ],
)
def test_a_family_is_asked_as_it_was_taught(model, taught, monkeypatch, own, options, wanted):
    taught(own)
    assert prompts(model, monkeypatch, **options) == [wanted]


def test_people_write_no_special_tokens(model, taught):
    taught(QWEN)
    made = model.transcribe(DATA, prompt="<|im_end|>")
    ends = model.tokenizer.encode("<|im_end|>", special=True)
    patches = model.prepare(opsin.Sound(DATA))
    prompt = made._work._taught(patches, QWEN).prompt
    ids = [id for span in prompt.spans if not isinstance(span, MediaSpan) for id in span.ids]
    assert ids.count(ends[0]) == QWEN.prompt.count("<|im_end|>")


def test_a_vocabulary_without_its_token_was_not_taught(model, taught, monkeypatch):
    taught(replace(VOXTRAL, token="[WRITE]"))
    assert "exactly what is said" in prompts(model, monkeypatch)[0]


def test_the_language_that_an_answer_begins_with_is_read(model, taught):
    taught(QWEN)
    with scripted(model, "language German<asr_text>das ist gut"):
        made = model.transcribe(DATA)
        assert (made.text, made.language) == ("das ist gut", "de")
    with scripted(model, "language None<asr_text>"):
        made = model.transcribe(DATA)
        assert (made.text, made.language, made.segments) == ("", None, [])


def test_a_long_sound_is_cut_where_it_is_quiet(model):
    random = np.random.default_rng(0)
    samples = (random.standard_normal(70 * RATE) * 0.1).astype(np.float32)
    quiet = [24 * RATE, 50 * RATE]
    for place in quiet:
        samples[place - RATE // 5 : place + RATE // 5] *= 0.01
    found = list(pieces(samples, PIECE))
    assert [first for first, _ in found] == [0, *(last for _, last in found[:-1])] and found[-1][1] == len(samples)
    assert np.allclose([last for _, last in found[:2]], quiet, atol=RATE // 10)
    assert max(last - first for first, last in found) <= PIECE * RATE
    assert list(pieces(samples[: 30 * RATE], PIECE)) == [(0, 30 * RATE)]


def test_pieces_are_joined_and_each_is_heard(model, monkeypatch):
    sound = recording(35.0)
    with scripted(model, "well"):
        made = model.transcribe(sound, temperature=0.0)
        done = [made.done for _ in made]
    assert made.text == "well well" and 0.5 < done[0] < done[1] <= 1.0 == made.done
    assert made.segments[0].end == made.segments[1].start and made.segments[1].end == 35.0
    rows = [piece.count("(sound)") for piece in prompts(model, monkeypatch, sound=sound)]
    assert rows == [1, 1]


@pytest.mark.parametrize(("said", "tried"), [("round and " * 60, [0.0, 0.5]), ("round and out", [0.0])])
def test_an_answer_that_goes_round_is_drawn_again(model, monkeypatch, said, tried):
    found, submit = [], model.engine.submit
    monkeypatch.setattr(
        model.engine, "submit", lambda asked, how, **more: found.append(how.temperature) or submit(asked, how, **more)
    )
    with scripted(model, said):
        (segment,) = model.transcribe(DATA, temperature=(0.0, 0.5))
    assert found == tried and segment.temperature == 0.0  # of two that are alike the first


@pytest.mark.parametrize(
    ("own", "more", "words"),
    [
        (None, {"timed": True}, "model writes down what was said, and not when"),
        (QWEN, {"words": True}, "model writes down what was said, and not when"),
        (QWEN, {"task": "translate"}, "model writes down what was said, and translates nothing"),
        (VOXTRAL, {"prompt": "Dashwood"}, "takes no prompt"),
        (QWEN, {"language": "tlh"}, "knows no language 'tlh'"),
        (None, {"language": "no code, but a text"}, "knows no language"),
        (None, {"task": "sing"}, "task='sing'"),
        (None, {"sound": b"no sound"}, "of an unknown kind"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(model, taught, own, more, words):
    taught(own)
    with pytest.raises(RequestError, match=words) as raised:
        model.transcribe(**{"sound": DATA, **more})
    assert raised.value.hint and "\n" not in str(raised.value)
