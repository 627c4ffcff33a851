"""Every family that hears: embeddings as others compute them, rows of any length, files that do not go together."""

from __future__ import annotations

import re

import numpy as np
import pytest

import opsin
from opsin.convert.hf import convert
from opsin.engine import scoring
from opsin.engine.sampling import Sampling
from opsin.errors import FileError, ModelError, OpsinError
from opsin.gguf import File
from opsin.models import load_audio_encoder
from opsin.nn.meta import MetaReader
from opsin.nn.module import FileReader
from opsin.ops.cpu import Operations
from opsin.spans import TextSpan

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from sound_truth import sound  # noqa: E402
from sound_truths import SOUNDS  # noqa: E402
from vision_truth import SPECIAL, byte_tokenizer, distance  # noqa: E402

from opsin.gguf import NewTensor, write  # noqa: E402

EACH_LENGTH = [(name, seconds) for name, truth in SOUNDS.items() for seconds in truth.seconds]


@pytest.fixture(scope="module", params=SOUNDS)
def truth(request):
    return SOUNDS[request.param]


@pytest.fixture(scope="module")
def theirs(truth):
    return truth.make()


@pytest.fixture(scope="module")
def path(truth, theirs, tmp_path_factory):
    return truth.write(tmp_path_factory.mktemp("hears") / "tower.gguf", theirs)


def opened(path, device):
    with File.open(path) as file:
        reader = FileReader(file, device.eager())
        encoder = load_audio_encoder(file, reader)
        assert not reader.unread()
        return encoder


@pytest.fixture(scope="module")
def encoder(path, device):
    return opened(path, device)


def embedded(encoder, wave):
    """Embeddings of a sound, span by span."""
    spans = encoder.layout(wave).spans
    assert len({span.digest for span in spans}) == len(spans)
    made = [encoder.encode(span.features.make()[None]).numpy() for span in spans]
    assert [len(rows) for rows in made] == [span.rows for span in spans]
    assert all(span.features.make().shape == span.features.shape for span in spans)
    return np.concatenate(made)


def expected(truth, theirs, wave):
    with torch.inference_mode():
        return truth.embed(theirs, wave.samples)


@pytest.mark.parametrize(("truth", "seconds"), EACH_LENGTH, indirect=["truth"])
def test_embeddings_equal_transformers(encoder, truth, theirs, seconds):
    wave = sound(seconds, seed=3)
    wanted = expected(truth, theirs, wave)
    layout = encoder.layout(wave)
    assert layout.rows == len(wanted) and all(span.positions == span.rows for span in layout.spans)
    assert distance(embedded(encoder, wave), wanted) < 1e-4


def test_embeddings_from_halves_are_near(truth, theirs, device, tmp_path):
    encoder, wave = opened(truth.write(tmp_path / "half.gguf", theirs, half=True), device), sound(0.73)
    assert distance(embedded(encoder, wave), expected(truth, theirs, wave)) < 5e-3


def test_a_batch_gives_what_its_sounds_give_alone(encoder):
    waves = [sound(0.44, seed=seed) for seed in range(3)]
    given = np.stack([encoder.layout(wave).spans[0].features.make() for wave in waves])
    alone = [encoder.encode(one[None]).numpy() for one in given]
    assert np.array_equal(encoder.encode(given).numpy(), np.concatenate(alone))


def test_what_stands_around_a_sound(encoder, truth):
    parts = encoder.layout(sound(0.9)).parts
    texts = [part for part in parts if isinstance(part, str)]
    before, behind = truth.around
    assert texts == [*before, *behind] and list(parts[: len(before)]) == list(before)
    assert encoder.marker == truth.marker and encoder.width == expected_width(truth)


def expected_width(truth):
    return expected(truth, truth.make(), sound(0.1)).shape[1]


def test_layouts_need_no_weights_and_no_samples(path, encoder):
    wave = sound(0.9)
    with File.open(path) as file:
        known = load_audio_encoder(file, MetaReader(file))
    assert [part if isinstance(part, str) else (part.digest, part.rows) for part in known.layout(wave).parts] == [
        part if isinstance(part, str) else (part.digest, part.rows) for part in encoder.layout(wave).parts
    ]


def one_row_less(right):
    def attend(ops, q, k, v, first, last, **options):
        return right(ops, q, k, v, first, ops.constant(last.numpy() - 1), **options)

    return attend


def another_loudness(right):
    return lambda bands: right(bands) * 0.5 ** np.arange(bands)


PATCHES = {
    "another mel scale": lambda truth: truth.scale,
    "filters of another loudness": lambda truth: (*truth.scale[:2], another_loudness),
    "rows see one row less": lambda truth: (Operations, "attend_dense", one_row_less),
}  # fmt: skip


@pytest.mark.parametrize("mistake", PATCHES)
def test_mistakes_are_seen(path, truth, theirs, device, monkeypatch, mistake):
    if truth.scale is None:
        pytest.skip("it hears samples, without a tower")
    owner, name, wrong = PATCHES[mistake](truth)
    wave = sound(0.73)
    wanted = expected(truth, theirs, wave)
    monkeypatch.setattr(owner, name, wrong(getattr(owner, name)))
    assert distance(embedded(opened(path, device), wave), wanted) > 1e-3


def test_mistakes_of_its_own_are_seen(path, truth, theirs, device, monkeypatch):
    wave = sound(truth.seconds[-1])
    wanted = expected(truth, theirs, wave)
    for owner, name, wrong in truth.mistakes.values():
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, wrong(getattr(owner, name)))
            assert distance(embedded(opened(path, device), wave), wanted) > 1e-3, name


def test_swapped_norms_are_seen(truth, theirs, device, tmp_path):
    if truth.norms is None:
        pytest.skip("it has no two")
    wave = sound(0.73)
    encoder = opened(truth.write(tmp_path / "swapped.gguf", theirs, swap=truth.norms), device)
    assert distance(embedded(encoder, wave), expected(truth, theirs, wave)) > 1e-3


def test_frames_that_are_one_off_are_seen(encoder, truth, theirs):
    wave = sound(0.4)
    spans = encoder.layout(wave).spans
    moved = [encoder.encode(np.roll(span.features.make(), 1, axis=0)[None]).numpy() for span in spans]
    assert distance(np.concatenate(moved), expected(truth, theirs, wave)) > 1e-3


DAMAGES = {
    "missing": lambda values: None,
    "one row less": lambda values: values[:-1],
    "one row more": lambda values: np.concatenate([values, values[:1]]),
    "one column less": lambda values: values[..., :-1] if values.ndim > 1 else None,
    "one column more": lambda values: np.concatenate([values, values[..., :1]], -1) if values.ndim > 1 else None,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_tensor_is_refused_by_its_name(path, device, tmp_path, damage):
    with File.open(path) as file:
        metadata, tensors = dict(file.typed), {name: FileReader(file, None).values(name) for name in file.tensors}
    for name, values in tensors.items():
        if ".blk." in name and ".blk.1." not in name or name == "a.position_embd.weight":  # as long as it is
            continue
        changed = DAMAGES[damage](values)
        changed = changed if changed is not None and changed.size else None
        kept = {**tensors, name: changed}
        bad = write(tmp_path / "bad.gguf", metadata, [NewTensor.of(n, v) for n, v in kept.items() if v is not None])[0]
        if changed is None and name.endswith(".bias"):
            continue
        with pytest.raises((ModelError, FileError)) as raised, File.open(bad) as file:
            load_audio_encoder(file, MetaReader(file))
            encoder = load_audio_encoder(file, FileReader(file, device.eager()))
            embedded(encoder, sound(0.2))
        stem = name.rpartition(".")[0]  # or that of a neighbour: matrices are held against each other
        near = next((part for part in ("a.blk.1.", "mm.a.") if name.startswith(part)), stem)
        assert near in str(raised.value), (name, str(raised.value))


VALUES = (None, 0, -1, 3, 7, 2**31, 1e30, "text", [1, 2])


def test_wrong_keys_are_refused_or_harmless(path, device, tmp_path):
    with File.open(path) as file:
        typed = dict(file.typed)
        tensors = [NewTensor(name, info.shape, info.type, file.read(name)) for name, info in file.tensors.items()]
    for key in [key for key in typed if key.startswith("clip.audio.")]:
        for value in VALUES:
            changed = {**typed, key: value}
            bad = write(tmp_path / "bad.gguf", {k: v for k, v in changed.items() if v is not None}, tensors)[0]
            try:
                with File.open(bad) as file:
                    assert len(embedded(load_audio_encoder(file, FileReader(file, device.eager())), sound(0.2)))
            except OpsinError as error:
                assert len(str(error)) < 400


@pytest.fixture(scope="module")
def saved(truth, tmp_path_factory):
    """Its class of transformers, and the folder of it with a tokenizer."""
    if truth.whole is None:
        pytest.skip("transformers has no such class")
    folder, model = tmp_path_factory.mktemp("whole"), truth.whole()
    model.save_pretrained(folder)
    tokens = re.findall(r"<[^>]+>|\[[A-Z_]+\]", truth.marker)
    shown = tokens[min(1, len(tokens) - 1)]
    named = dict.fromkeys([shown, *tokens, *truth.around[0], *truth.around[1], *truth.tokens])
    tokenizer = byte_tokenizer(list(named), truth.marker)
    tokenizer.chat_template = tokenizer.chat_template.replace("'image'", "'audio'")
    tokenizer.save_pretrained(folder)
    return model, folder


@pytest.fixture(scope="module")
def talks(saved, tmp_path_factory):
    """Ours, converted from it."""
    made = tmp_path_factory.mktemp("talks")
    convert(saved[1], made / "model.gguf", mmproj=made / "mmproj.gguf", format="f32")
    with opsin.load(made / "model.gguf", threads=1, pages="f32", context=1024, sequences=8) as model:
        yield model


ONE, OTHER, LONG = sound(0.31, seed=4), sound(0.2, seed=5), sound(0.73, seed=6)
CONVERSATIONS = {
    "no sound": [["Only words."]],
    "one sound": [["Hear ", ONE, " and say."]],
    "three sounds among texts": [["First ", OTHER, " then", LONG, "."], ["And this?", ONE]],
}


def prompt_of(model, name):
    return model.chat_prompt([{"role": "user", "content": parts} for parts in CONVERSATIONS[name]])


def test_logits_equal_transformers(truth, saved, talks):
    theirs, folder = saved
    prompt = prompt_of(talks, "one sound")
    ids = [i for span in prompt.spans for i in (span.ids if isinstance(span, TextSpan) else [SPECIAL] * len(span))]
    with torch.inference_mode():
        assert distance(talks.logits(prompt), truth.logits(theirs, ids, ONE.samples)) < 1e-4
    with opsin.load(folder, threads=1, pages="f32", context=256) as opened:
        assert opened.has_audio and prompt_of(opened, "one sound") == prompt


@pytest.mark.parametrize("size", [1, 7, 64])
def test_chunks_give_the_same_bits(talks, size):
    given = prompt_of(talks, "three sounds among texts")
    sizes = [size] * (len(given) // size + 1)
    assert np.array_equal(scoring.score(talks.engine, talks.runner, given, sizes), talks.logits(given))


def test_answers_in_company_and_after_a_prefix_are_those_alone(talks):
    """With their probabilities, to the bit."""

    def told(stream):
        return [(piece.id, piece.logprobs) for piece in stream]

    def submit(name):
        sampling = Sampling(temperature=0.0, max_tokens=6, ignore_eos=True, logprobs=5)
        return talks.engine.submit(prompt_of(talks, name), sampling)

    alone, again = ([told(submit(name)) for name in CONVERSATIONS] for _ in range(2))
    streams = [submit(name) for name in [*CONVERSATIONS] * 2]
    assert again == alone
    assert [told(stream) for stream in streams] == alone * 2
    assert all(len(said) == 6 for said in alone)
    assert len({said[0] for said in map(tuple, alone)}) == 3
