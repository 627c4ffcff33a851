"""Sounds in conversations: every form in which people give them, where templates put them, what is refused."""

from __future__ import annotations

import base64
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from tiny_hearing import SECOND, recording, tiny_hearing
from tiny_sight import tiny_pair

import opsin
from opsin.api.byte_budget import ByteBudget
from opsin.api.waiting import PictureBytes
from opsin.errors import ContextError, RequestError
from opsin.media.fetch import FetchRules
from opsin.media.hearing import open_sound
from opsin.spans import MediaSpan, block_keys

DATA = recording()
OTHER = recording(seed=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("hears")
    (made / "a.wav").write_bytes(DATA)
    return made


@pytest.fixture(scope="module")
def model(folder):
    rules = FetchRules(folders=(folder,))
    with opsin.load(tiny_hearing(folder), threads=2, context=512, sequences=4, rules=rules) as made:
        yield made


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    with opsin.load(tiny_hearing(tmp_path_factory.mktemp("both"), sees=True), threads=2, context=512) as made:
        yield made


@pytest.fixture(scope="module")
def sight(tmp_path_factory):
    with opsin.load(tiny_pair(tmp_path_factory.mktemp("sees"))[0], threads=1, context=512) as made:
        yield made


def ask(*parts):
    return [{"role": "user", "content": list(parts)}]


def test_a_sound_stands_in_a_prompt_with_its_tokens_and_seconds(model):
    question = model.question(ask("Who is it? ", opsin.Sound(DATA), "Say."))
    (use,) = question.pictures
    assert (use.kind, use.rows, use.seconds, use.name) == ("audio", SECOND, 1.0, "messages[0].content[1]")
    spans = [span for span in question.prompt.spans if isinstance(span, MediaSpan)]
    assert sum(map(len, spans)) == SECOND and model.has_audio and not model.has_vision
    assert repr(model) == "<Model 'model.gguf': hears, context 512>"
    assert "1.00 seconds" in repr(model.prepare(opsin.Sound(DATA)))


def test_an_answer_counts_what_it_heard(model):
    answer = model.chat(ask("Who is it?", opsin.Sound(DATA)), max_tokens=4, temperature=0)
    text = answer.text
    assert (answer.usage.sounds, answer.usage.pictures) == (SECOND, 0)
    again = model.chat(ask("Who is it?", opsin.Sound(DATA)), max_tokens=4, temperature=0)
    assert again.text == text and again.usage.cached > 0


def test_every_form_is_the_same_sound(model, folder):
    encoded = base64.b64encode(DATA).decode()
    forms = [
        opsin.Sound(DATA), opsin.Sound(folder / "a.wav"), opsin.Sound(str(folder / "a.wav")),
        opsin.Sound(BytesIO(DATA)), open_sound(DATA),
        {"type": "input_audio", "input_audio": {"data": encoded, "format": "wav"}},
        {"type": "input_audio", "input_audio": {"data": f"data:audio/wav;base64,{encoded}"}},
        {"type": "audio_url", "audio_url": {"url": f"data:audio/wav;base64,{encoded}"}},
        {"type": "audio_url", "audio_url": encoded}, {"type": "audio_url", "audio_url": f"file://{folder}/a.wav"},
        {"type": "audio", "audio": DATA}, model.prepare(opsin.Sound(DATA)),
    ]  # fmt: skip
    prompts = [model.chat_prompt(ask("Hear: ", form)) for form in forms]
    assert all(prompt == prompts[0] for prompt in prompts)
    assert model.chat_prompt(ask("Hear: ", opsin.Sound(OTHER))) != prompts[0]


def test_samples_are_a_sound_at_their_rate(model):
    rate = 48_000
    samples = np.sin(np.arange(rate) / 20).astype(np.float32)
    assert model.prepare(opsin.Sound(samples, rate)).rows == SECOND
    assert model.prepare(opsin.Sound(samples)).seconds == 3.0


def test_what_is_heard_changes_what_is_expected(model):
    one, same, other = (model.logits(model.chat_prompt(ask(opsin.Sound(d), "What?"))) for d in (DATA, DATA, OTHER))
    assert np.array_equal(one, same) and np.abs(one[-1] - other[-1]).max() > 1e-2


@pytest.mark.parametrize("form", ["parts", "text"])
def test_pictures_and_sounds_stand_where_they_were_given(tmp_path, form):
    with opsin.load(tiny_hearing(tmp_path, form=form, sees=True), threads=1, context=512) as made:
        image = Image.new("RGB", (40, 30), "red")
        parts = ("a", opsin.Sound(DATA), "b", image, "c", opsin.Sound(OTHER))
        prompt = made.chat_prompt(ask(*parts))
        wanted = [made.prepare(part) for part in parts if not isinstance(part, str)]
        digests = [span.digest for span in prompt.spans if isinstance(span, MediaSpan)]
        assert digests == [span.digest for patches in wanted for span in patches.spans]
        told = [use.kind for use in made.question(ask(*parts)).pictures]
        assert told == ["audio", "image", "audio"]


def test_a_marker_that_people_write_is_text(model):
    prompt = model.chat_prompt(ask("<|audio|> and <|audio|>", opsin.Sound(DATA)))
    assert sum(len(span) for span in prompt.spans if isinstance(span, MediaSpan)) == SECOND


def test_two_parts_of_one_file_encode_what_each_alone_does(both, model, sight):
    image = Image.new("RGB", (40, 30), "red")
    heard, seen = both.encode([opsin.Sound(DATA), image])
    assert np.array_equal(heard.values, model.encode(opsin.Sound(DATA)).values)
    assert np.array_equal(seen.values, sight.encode(image).values)
    assert both.has_audio and both.has_vision and "sees and hears" in repr(both)
    prompt = both.chat_prompt(ask(opsin.Sound(DATA), image, "Which?"))
    assert np.isfinite(both.logits(prompt)).all()


def test_an_mmproj_alone_encodes_sounds(folder, model):
    with opsin.load(folder / "mmproj.gguf", threads=1) as alone:
        assert not alone.has_text
        assert np.array_equal(alone.encode(opsin.Sound(DATA)).values, model.encode(opsin.Sound(DATA)).values)


def test_texts_for_raw_have_places_of_sounds(model):
    question = model.raw([f"Hear {model.picture_marker} now"], [opsin.Sound(DATA)])
    assert [use.kind for use in question.pictures] == ["audio"]
    assert np.isfinite(model.logits(question.prompt)).all()


def test_a_sound_that_waits_is_decoded_again(model, monkeypatch):
    known = model.logits(model.chat_prompt(ask(opsin.Sound(DATA), "x")))
    fresh = recording(seed=5)
    monkeypatch.setattr(model.senses.audio, "budgets", PictureBytes(ByteBudget(0), ByteBudget(None)))
    first = model.logits(model.chat_prompt(ask(opsin.Sound(fresh), "x")))
    monkeypatch.undo()
    assert not np.array_equal(first, known)
    with opsin.load(model.path, threads=1, context=512) as other:
        assert np.array_equal(first, other.logits(other.chat_prompt(ask(opsin.Sound(fresh), "x"))))


def test_salted_sounds_share_nothing(model):
    from opsin.api.prompt_options import PromptOptions

    one, other = (model.question(ask(opsin.Sound(DATA)), PromptOptions(salt=salt)).prompt for salt in (b"", b"x"))
    assert not set(block_keys(one, 8)) & set(block_keys(other, 8))


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (opsin.Sound(b"nothing"), "of an unknown kind"),
        (opsin.Sound(b""), "an empty file"),
        (opsin.Sound(7), "a int is no sound"),
        (opsin.Sound("nowhere.wav"), "cannot be read"),
        ({"type": "input_audio", "input_audio": {"data": "@@@"}}, "its base64 is damaged"),
        ({"type": "input_audio", "input_audio": {"format": "wav"}}, "there is no input_audio"),
        ({"type": "audio_url"}, "there is no audio_url"),
        ({"type": "audio_url", "audio_url": {"url": "ftp://a/b.wav"}}, "ftp: URLs are not read"),
        ({"type": "audio_url", "audio_url": "file:///etc/passwd"}, "not below a folder"),
        (Image.new("RGB", (9, 9)), "is a picture, and this model takes sound and text only"),
    ],
)
def test_what_is_no_sound_is_refused_by_its_name(model, part, words):
    with pytest.raises(RequestError) as raised:
        model.question(ask("x", part))
    assert "messages[0].content[1]" in str(raised.value) and words in str(raised.value) and raised.value.hint


def test_a_model_that_does_not_hear_says_so(sight):
    for part in (opsin.Sound(DATA), {"type": "input_audio", "input_audio": {"data": "x"}}):
        with pytest.raises(RequestError, match=r"messages\[0\].content\[0\].*is a sound, and this model does not hear"):
            sight.question(ask(part))
    for call in (sight.prepare, sight.encode):
        with pytest.raises(RequestError, match="does not hear"):
            call(opsin.Sound(DATA))


def test_too_much_sound_is_refused_by_its_number(model):
    long = opsin.Sound(recording(45.0))
    with pytest.raises(ContextError, match=r"messages\[0\].content\[2\], sound 2 of 2 \(up to token \d+") as raised:
        model.question(ask(opsin.Sound(DATA), "and", long))
    assert "send less sound" in str(raised.value)
    with pytest.raises(RequestError, match="seconds of sound, at most 3600"):
        model.question(ask(opsin.Sound(np.zeros(3700 * 1000, np.float32), 1000)))


def test_a_part_for_sound_that_nobody_knows_leaves_the_one_for_pictures(tmp_path):
    from tiny_hearing import hearing_metadata, hearing_tensors
    from tiny_sight import tower_metadata, tower_tensors, write_tower

    text, mmproj = tiny_pair(tmp_path)
    keys = {**hearing_metadata(), **tower_metadata("gemma3"), "clip.audio.projector_type": "strange"}
    write_tower(mmproj, keys, hearing_tensors() | tower_tensors("gemma3", 64))
    with opsin.load(text, threads=1, context=256) as made:
        assert made.has_vision and not made.has_audio
        assert any("sound is left out" in note and "'strange' is not supported" in note for note in made.notes)


def test_a_part_for_sound_of_another_model_does_not_fit(tmp_path):
    from tiny_hearing import hearing_metadata, hearing_tensors
    from tiny_sight import write_tower

    text = tiny_hearing(tmp_path)
    write_tower(tmp_path / "mmproj.gguf", hearing_metadata(48), hearing_tensors(48))
    with opsin.load(text, threads=1, context=256) as made:
        assert not made.has_audio and any("embeddings of 48 values, the model takes 64" in note for note in made.notes)
