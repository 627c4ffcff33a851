"""Files in Ollama's words answer as the pair that they were written from, to the bit; halves of them are refused."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

import opsin
from opsin.convert.hf import convert
from opsin.convert.quantise import quantise
from opsin.errors import OpsinError
from opsin.gguf import File
from opsin.gguf.dialect import translate
from opsin.models import dialects, load_encoder, open_model
from opsin.nn.meta import MetaReader

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from foreign import plain_pair, write_foreign  # noqa: E402
from truths import FOREIGN, TOWERS  # noqa: E402
from vision_truth import picture  # noqa: E402

from opsin.cli.file_report import report_file  # noqa: E402
from opsin.gguf import write  # noqa: E402

SEEN = [["What is this? ", picture(160, 131), " And this? ", picture(60, 44, seed=1), " Say it."]]


def test_every_dialect_is_tried():
    assert {entry.architecture for entry in dialects() if entry.projector} == set(FOREIGN)


@pytest.fixture(scope="module", params=[(name, kind) for name in FOREIGN for kind in ("f32", "f16")], ids="-".join)
def files(request, tmp_path_factory):
    """The model and the tower of a pair, and both in one file in other words."""
    name, kind = request.param
    foreign, folder = FOREIGN[name], tmp_path_factory.mktemp(f"{name}-{kind}")
    truth = TOWERS[foreign.truth]
    truth.save(truth.make(), folder / "hf")
    convert(folder / "hf", folder / "model.gguf", mmproj=folder / "mmproj.gguf", format=kind)
    pair = plain_pair(foreign, folder, folder / "model.gguf", folder / "mmproj.gguf")
    one = folder / "one"
    one.mkdir()
    return *pair, write_foreign(one / "model.gguf", foreign, *pair)


def answers(path, mmproj=None):
    """Logits of a conversation with two pictures."""
    with opsin.load(path, mmproj=mmproj, threads=2, context=2048) as model:
        given = model.chat_prompt([{"role": "user", "content": parts} for parts in SEEN])
        return model.logits(given), model.notes


def test_logits_are_those_of_the_pair(files):
    text, eyes, one = files
    theirs, _ = answers(text, eyes)
    ours, notes = answers(one)
    assert np.array_equal(ours, theirs)
    assert not any("picture" in note for note in notes)


def test_a_part_of_it_that_sees_is_taken_for_another_file(files):
    """As the file for pictures of the text alone."""
    text, eyes, one = files
    assert np.array_equal(answers(text, one)[0], answers(text, eyes)[0])


def test_what_is_told_of_it_is_what_is_told_of_the_pair(files):
    text, eyes, one = files
    with open_model(one) as file, File.join(File.open(text), File.open(eyes)) as pair:
        ours, theirs = report_file(file), report_file(pair)
        assert ours.vision.problem is None and ours.architecture == theirs.architecture
        assert (ours.weight_bytes, ours.cache_bytes, ours.context) == (
            theirs.weight_bytes, theirs.cache_bytes, theirs.context,
        )  # fmt: skip
        both, apart = set(file.tensors) & set(pair.tensors), set(file.tensors) ^ set(pair.tensors)
        cut = {name for name in both if file.tensors[name].shape != pair.tensors[name].shape}
        assert all(np.array_equal(file.read(name), pair.read(name)) for name in both - cut)
        # What is one matrix in the pair may be two or three in the other file.
        assert all(".ffn_up." in name for name in cut)
        assert all("attn_" in name or (cut and ".ffn_gate." in name) for name in apart)
        if not apart:
            assert (ours.vision, ours.tensors) == (theirs.vision, theirs.tensors)


def test_what_is_written_of_it_is_in_plain_words(files, tmp_path):
    _, _, one = files
    quantise(one, tmp_path / "plain.gguf", "F32")
    with File.open(tmp_path / "plain.gguf") as file:
        assert "clip.projector_type" in file.metadata
        assert not any(".vision." in key and not key.startswith("clip.") for key in file.metadata)
    with open_model(tmp_path / "plain.gguf") as file, open_model(one) as told:
        assert dict(file.tensors).keys() == dict(told.tensors).keys()
    assert np.isfinite(answers(tmp_path / "plain.gguf")[0]).all()


def changed(path, target, *, keys=lambda keys: keys, tensors=lambda name: name):
    """The file with other keys, and with tensors under other names; None for none."""
    with File.open(path) as file:
        kept = [(tensors(name), file.copy_tensor(name)) for name in file.tensors]
        for name, tensor in kept:
            object.__setattr__(tensor, "name", name)
        write(target, keys(dict(file.typed)), [tensor for name, tensor in kept if name is not None])
    return target


def refusal(path):
    with pytest.raises(OpsinError) as caught:
        opsin.load(path, threads=2, context=256).close()
    told = str(caught.value)
    assert "\n" not in told and len(told) < 400
    assert str(path) in told
    return told


def test_half_of_it_is_refused(files, tmp_path):
    _, _, one = files
    with File.open(one) as file:
        arch = file.get_str("general.architecture")
        sees = [name for name in file.tensors if name.startswith(("v.", "mm."))]
    target = tmp_path / "half.gguf"

    def without(key):
        return lambda keys: {name: value for name, value in keys.items() if name != key}

    told = refusal(changed(one, target, tensors=lambda name: None if name in sees else name))
    assert f"says {arch}.vision.block_count, but holds no tensors for pictures" in told
    told = refusal(changed(one, target, keys=without(f"{arch}.vision.block_count")))
    assert f"says no {arch}.vision.block_count" in told
    for key in ("attention.head_count", "patch_size", "embedding_length"):
        assert f"clip.vision.{key}" in refusal(changed(one, target, keys=without(f"{arch}.vision.{key}")))
    first = next(name for name in sees if name.startswith("v.patch") and "weight" in name)
    assert "patch_embd" in refusal(changed(one, target, tensors=lambda name: None if name == first else name))


def test_a_file_that_was_told_once_is_not_told_again(files):
    text, eyes, _ = files
    for path in (text, eyes):
        with open_model(path) as told, File.open(path) as plain:
            assert told.metadata.keys() == plain.metadata.keys()
            assert dict(told.tensors) == dict(plain.tensors)


def test_the_text_of_it_alone_answers_as_the_text(files, tmp_path):
    text, _, one = files
    alone = changed(
        one, tmp_path / "alone.gguf", tensors=lambda name: None if name.startswith(("v.", "mm.")) else name,
        keys=lambda keys: {name: value for name, value in keys.items() if ".vision." not in name},
    )  # fmt: skip
    found = []
    for path in (text, alone):
        with opsin.load(path, threads=2, context=256, vision=False) as model:
            found.append(model.logits(list(range(7, 90))))
    assert np.array_equal(*found)


def test_one_in_a_folder_is_opened_by_the_folder(files, tmp_path):
    shutil.copy(files[-1], tmp_path / "model.gguf")
    with opsin.load(tmp_path, threads=2, context=256) as model:
        assert model.vision is not None


HOSTILE = [0, -1, 3, 2**31, 2**40, 2**63 - 1, 1e30, float("nan"), "a", np.zeros(4, np.int32), np.array([2**62]),
           np.array([1.5]), np.array([2**31 - 1] * 40)]  # fmt: skip


def test_numbers_of_strangers_are_refused_or_harmless(files):
    """Nothing is read here, so that a file is refused as soon as it is opened, or never."""
    refused = 0
    with File.open(files[-1]) as file:
        arch = file.get_str("general.architecture")
        for key in [key for key in file.metadata if key.startswith(f"{arch}.")]:
            for value in HOSTILE:
                try:
                    told = translate(file.with_keys({key: value}), dialects())
                    load_encoder(told, MetaReader(told))
                except OpsinError as error:
                    assert "\n" not in str(error) and len(str(error)) < 400
                    refused += 1
    assert refused > 50
