"""Qwen3-ASR in its other wrappings: its makers' folders, and the text part that llama.cpp's converter writes."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import opsin
from opsin.convert.hf import convert
from opsin.gguf import File, NewTensor, write
from opsin.models import qwen3asr

pytest.importorskip("torch")
pytest.importorskip("transformers")

from qwen3asr_truth import qwen3asr_truth
from sound_truth import sound
from vision_truth import byte_tokenizer

OTHER = ("general.name", "tokenizer.chat_template")  # what is not of the model
MARKER = ("<|audio_start|>", "<|audio_pad|>", "<|audio_end|>")
TURNS = ("<|im_start|>", "<|im_end|>")
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
    "{% for p in m.content %}{{ p.text if p.type == 'text' else '<|audio_start|>(sound)<|audio_end|>' }}{% endfor %}"
    "{{ '<|im_end|>\\n' }}{% endfor %}"
)
THEIRS = {
    "model.multi_modal_projector.linear_": "thinker.audio_tower.proj", "model.audio_tower.": "thinker.audio_tower.",
    "model.language_model.": "thinker.model.", "lm_head.": "thinker.lm_head.",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("qwen3asr")
    qwen3asr_truth().save_pretrained(made)
    tokenizer = byte_tokenizer([MARKER[1], MARKER[0], MARKER[2], *TURNS, "<asr_text>"], "".join(MARKER))
    tokenizer.chat_template = tokenizer.chat_template.replace("'image'", "'audio'")
    tokenizer.save_pretrained(made)
    return made


@pytest.fixture(scope="module")
def pair(folder):
    model, mmproj = folder / "model.gguf", folder / "mmproj.gguf"
    convert(folder, model, mmproj=mmproj, format="f32")
    return model, mmproj


def contents(path):
    with File.open(path) as file:
        keys = {key: value for key, value in file.metadata.items() if key not in OTHER}
        tensors = {name: (info.shape, file.read(name).tobytes()) for name, info in file.tensors.items()}
    listed = {key: list(value) if isinstance(value, Sequence | np.ndarray) else value for key, value in keys.items()}
    return listed, tensors


def test_the_makers_own_folder_becomes_the_same_files(folder, pair, tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        (theirs / name).write_bytes((folder / name).read_bytes())
    config = json.loads((folder / "config.json").read_text())
    thinker = {name: config.pop(name) for name in ("audio_config", "text_config")}
    thinker["text_config"]["model_type"] = "qwen3_asr_text"
    thinker["text_config"]["rope_parameters"] |= {"mrope_section": [3, 3, 2], "mrope_interleaved": True}
    (theirs / "config.json").write_text(json.dumps({**config, "thinker_config": thinker}))
    renamed = {}
    for name, values in load_file(folder / "model.safetensors").items():
        start = next(start for start in THEIRS if name.startswith(start))
        renamed[THEIRS[start] + name.removeprefix(start)] = values
    save_file(renamed, theirs / "model.safetensors")
    made = tmp_path / "model.gguf", tmp_path / "mmproj.gguf"
    convert(theirs, made[0], mmproj=made[1], format="f32")
    for ours, wanted in zip(made, pair, strict=True):
        (keys, tensors), (wanted_keys, wanted_tensors) = contents(ours), contents(wanted)
        assert keys == wanted_keys
        assert tensors == wanted_tensors


def test_a_text_part_with_three_axes_reads_sound_alike(pair, tmp_path):
    with File.open(pair[0]) as file:
        keys = {key.replace("qwen3.", "qwen3vl."): value for key, value in file.typed.items()}
        tensors = [NewTensor(name, info.shape, info.type, file.read(name)) for name, info in file.tensors.items()]
    keys |= {
        "general.architecture": "qwen3vl", "qwen3vl.n_deepstack_layers": 0,
        "qwen3vl.rope.dimension_sections": np.array([3, 3, 2, 0], np.int32),
    }  # fmt: skip
    write(tmp_path / "model.gguf", keys, tensors)
    (tmp_path / "mmproj.gguf").write_bytes(pair[1].read_bytes())
    asked, made = [{"role": "user", "content": ["Hear ", sound(0.9), " and say."]}], []
    for path in (pair[0], tmp_path / "model.gguf"):
        with opsin.load(path, threads=1, pages="f32", context=256) as model:
            made.append(model.logits(model.chat_prompt(asked)))
    assert np.abs(made[0] - made[1]).max() < 1e-5 * np.abs(made[0]).max()


def shown(model, span):
    return b"".join(model.tokenizer.piece(id, special=True) for id in span.ids)


def test_it_writes_down_what_transformers_asks_it_to(pair, monkeypatch):
    from transformers import Qwen3ASRFeatureExtractor
    from transformers.models.qwen3_asr import processing_qwen3_asr as theirs

    assert qwen3asr.DICTATIONS["qwen3a"].languages == theirs.LANGUAGE_CODE_TO_NAME
    names = {"audio_bos_token": MARKER[0], "audio_token": MARKER[1], "audio_eos_token": MARKER[2]}
    processor = theirs.Qwen3ASRProcessor(Qwen3ASRFeatureExtractor(), byte_tokenizer([*MARKER], "", **names), CHATML)
    samples, asked = sound(0.9).samples, {"language": "fr", "prompt": "Dashwood"}
    wanted = processor.apply_transcription_request([samples], tokenize=False, **asked)
    found = []
    with opsin.load(pair[0], threads=1, context=256) as model:
        submit = model.engine.submit

        def seen(prompt, *args, **more):
            spans = [getattr(span, "ids", None) for span in prompt.spans]
            pieces = [
                b"(sound)" if ids is None else model.tokenizer.piece(id, special=True)
                for ids in spans
                for id in ids or [0]
            ]
            found.append(b"".join(pieces).decode())
            return submit(prompt, *args, **more)

        monkeypatch.setattr(model.engine, "submit", seen)
        list(model.transcribe(samples, temperature=0.0, **asked))
    assert found == wanted
