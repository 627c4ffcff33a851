"""Every number that a family reads: whatever stands there, the model is refused when it is loaded, or it answers.

The keys are those that are asked for while a tiny model of each family loads, so a new family is covered by itself.
"""

from __future__ import annotations

import resource
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

pytest.importorskip("torch")
checkpoints = pytest.importorskip("checkpoints", reason="needs transformers")

import encoder_folders  # noqa: E402
import pixtral_truth  # noqa: E402
import tiny_speech  # noqa: E402
import truths  # noqa: E402
from tiny import tiny_llama  # noqa: E402
from vision_truth import features, picture  # noqa: E402

from opsin.convert.hf import convert  # noqa: E402
from opsin.engine.pooling import _HiddenProgram, _Text  # noqa: E402
from opsin.engine.room import Room  # noqa: E402
from opsin.engine.rows import PromptRows  # noqa: E402
from opsin.engine.runner import Limits, Runner  # noqa: E402
from opsin.errors import FileError, ModelError, RequestError  # noqa: E402
from opsin.gguf import File  # noqa: E402
from opsin.media.decode import open_picture  # noqa: E402
from opsin.models import architectures, load_decoder, load_encoder, load_hearer, projectors  # noqa: E402
from opsin.nn.meta import MetaReader  # noqa: E402
from opsin.nn.module import FileReader  # noqa: E402
from opsin.spans import Prompt  # noqa: E402

pytestmark = pytest.mark.timeout(1200)  # a test takes ten seconds; all of them three minutes: they begin first

INTEGERS = [0, 1, 3, -1, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1]
FLOATS = [0.0, 1e-45, 1e-20, 1e20, 1.7e308, -1e30, float("nan"), float("inf")]
ARRAYS = [[0] * 4, [1, 2, 3], [2.5] * 3, [float("nan")] * 3, [2**31 - 1] * 4, [2**64 - 1] * 2, []]
VALUES = [None, *INTEGERS, *FLOATS, True, "yarn", ["a"], *(np.array(array) for array in ARRAYS)]  # None: no such key
LIMITS = Limits(rows=8, outputs=8, sequences=2, context=64, pages=2)
SPARE = 1 << 30  # bytes that loading or answering may take beside what there is; such a model needs a few million


def write_mllama(path):
    """The decoder of Llama 3.2 Vision, whose checkpoint holds both parts."""
    truth = truths.TOWERS["mllama_vision"]
    truth.save(truth.make(), path.with_suffix(""))
    return convert(path.with_suffix(""), path, format="f32", vision=False).paths[0]


def write_whisper(path):
    """Both of its parts."""
    return tiny_speech.write_by_hand(path, tiny_speech.published())


def write_encoder(path, kind):
    """An encoder of text, whose states are its answer."""
    encoder_folders.save(path.with_suffix(""), kind)
    return convert(path.with_suffix(""), path, format="f32").paths[0]


def states(device, encoder):
    """States [3, width] of three tokens."""
    text = _Text(PromptRows(Prompt.of([[1, 2, 3]]), encoder.axes), "none", room=Room([0], [], []))
    return _HiddenProgram(Runner(device, encoder, LIMITS, "f16")).run([(text, 3)]).copy()


ENCODERS = [name for name in encoder_folders.ENCODERS if name in architectures()]
TEXT = (
    {"llama": tiny_llama, "mistral3": pixtral_truth.write_text, "mllama": write_mllama, "whisper": write_whisper}
    | {
        name: lambda path, name=name: checkpoints.save(path, name, checkpoints.make(name))
        for name in checkpoints.CHECKPOINTS
    }
    | {name: lambda path, name=name: write_encoder(path, name) for name in ENCODERS}
)
EYES = truths.LAYOUTS  # each way in which a family lays pictures out
YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 256}


class Kept(FileReader):
    """Tensors that are packed once: only numbers of the file change from one load to the next."""

    def __init__(self, file, ops, kept):
        super().__init__(file, ops)
        self.kept = kept

    def weight(self, name, *, change=None, rows=None):
        if rows is not None:
            return super().weight(name, rows=rows)
        if (name, change) not in self.kept:
            self.kept[name, change] = super().weight(name, change=change)
        return self.kept[name, change]

    def stack(self, name, part=0, parts=1):
        if (name, part, parts) not in self.kept:
            self.kept[name, part, parts] = super().stack(name, part, parts)
        return self.kept[name, part, parts]

    def values(self, name):
        if name not in self.kept:
            self.kept[name] = super().values(name)
        return self.kept[name].copy()


def with_keys(path, **changes):
    """The file with some of its metadata changed, or without it where it is None."""
    file = File.open(path)
    known = {key: value for key, value in {**file.metadata, **changes}.items() if value is not None}
    file.metadata = MappingProxyType(known)
    return file


def asked_for(file, load, monkeypatch):
    """The keys that a load asks for."""
    asked = []
    with monkeypatch.context() as patch:
        for name in ("_get", "_get_array"):
            plain = getattr(File, name)

            def watched(self, key, default, plain=plain):
                asked.append(key)
                return plain(self, key, default)

            patch.setattr(File, name, watched)
        load(file)
    return [key for key in dict.fromkeys(asked) if not key.startswith("general.")]


@contextmanager
def little_memory():
    """Gigabytes cannot be had."""
    there = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (there + SPARE, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def try_all(path, base, load, answer, monkeypatch):
    """Each key with each value. How many were refused, and how many answered."""
    with with_keys(path, **base) as file:
        keys = asked_for(file, load, monkeypatch)
        assert np.isfinite(answer(load(file))).all()
    refused, answered, wrong = 0, 0, []
    for key in keys:
        for value in VALUES:
            with with_keys(path, **{**base, key: value}) as file, little_memory():
                try:
                    loaded = load(file)
                except (FileError, ModelError) as error:
                    assert len(str(error)) < 400, (key, value)
                    refused += 1
                    continue
                except Exception as error:  # noqa: BLE001 - all that is wrong is told at once
                    wrong.append((key, value, f"load: {error!r}"))
                    continue
                try:
                    assert np.isfinite(answer(loaded)).all(), "no numbers"
                    answered += 1
                except Exception as error:  # noqa: BLE001
                    wrong.append((key, value, f"answer: {error!r:.200}"))
    assert wrong == []
    return keys, refused, answered


def test_all_families_are_tried():
    assert set(TEXT) == set(architectures())
    assert {truth.projector for truth in EYES.values()} == set(projectors())


@pytest.mark.parametrize("family", [*architectures(), "llama with yarn"])
def test_a_decoder_is_refused_at_load_or_answers(device, tmp_path, monkeypatch, family):
    name, _, yarn = family.partition(" with ")
    path, kept, ops = TEXT[name](tmp_path / "model.gguf"), {}, device.eager()

    def load(file):
        return load_decoder(file, Kept(file, ops, kept))

    def answer(decoder):
        if name in ENCODERS:
            return states(device, decoder)
        return Runner(device, decoder, LIMITS, "f16").score([1, 2, 3], [0], states=(0, 1))

    base = {f"{name}.{key}": value for key, value in YARN.items()} if yarn else {}
    keys, refused, answered = try_all(path, base, load, answer, monkeypatch)
    assert len(keys) >= 8
    assert f"{name}.attention.head_count_kv" in keys
    assert refused > 7 * len(keys)
    assert answered > len(keys)


@pytest.mark.parametrize("family", EYES)
def test_a_tower_is_refused_at_load_or_encodes(device, tmp_path, monkeypatch, family):
    path, kept, ops = EYES[family].write(tmp_path / "mmproj.gguf"), {}, device.eager()
    seen = open_picture(picture(60, 44))

    def load(file):
        load_encoder(file, MetaReader(file))
        return load_encoder(file, Kept(file, ops, kept))

    def answer(encoder):
        try:
            patches = encoder.layout(seen)
        except RequestError:  # a picture of another size may do
            return np.zeros(1)
        return encoder.encode(features(patches)[0][None]).numpy()

    keys, refused, answered = try_all(path, {}, load, answer, monkeypatch)
    assert len(keys) >= 10
    assert refused > 7 * len(keys)
    assert answered > len(keys)


def test_ears_are_refused_at_load_or_hear(device, tmp_path, monkeypatch):
    path, kept, ops = write_whisper(tmp_path / "model.gguf"), {}, device.eager()

    def load(file):
        load_hearer(file, MetaReader(file))
        return load_hearer(file, Kept(file, ops, kept))

    keys, refused, answered = try_all(
        path, {}, load, lambda ears: ears.encode(tiny_speech.heard()).numpy(), monkeypatch
    )
    assert len(keys) >= 7
    assert refused > 7 * len(keys)
    assert answered > len(keys)
