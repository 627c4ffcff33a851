"""llama.cpp loads what we convert, and its embeddings are ours, but for what is listed here.

Pictures have the size that the tower takes, so that its own ways of resizing do not matter. It shows LLaVA's class
row after the patches, so that positions are one late, and keeps that row instead of the first patch's; positions of
InternVL are late as well. Between rows of Pixtral's it wants a tensor of the tower, which is text for us: its file gets
it, and those rows are left out. Of LLaVA-NeXT's and OneVision's it shows tiles one after another, without newlines, and
the whole picture last.
"""

from __future__ import annotations

import base64
import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import opsin
from opsin.convert.hf import convert
from opsin.gguf import File
from opsin.media.decode import open_picture
from opsin.models import load_encoder
from opsin.nn.module import FileReader
from opsin.nn.vit import attention_spans, block_order

xllamacpp = pytest.importorskip("xllamacpp")
pytest.importorskip("torch")
pytest.importorskip("transformers")

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
import dotsocr_truth  # noqa: E402
import gemma3_truth  # noqa: E402
import gemma4_unified_truth  # noqa: E402
import gemma4_vision_truth  # noqa: E402
import glm4v_truth  # noqa: E402
import idefics3_truth  # noqa: E402
import internvl_truth  # noqa: E402
import lfm2_vl_truth  # noqa: E402
import llava_next_truth  # noqa: E402
import llava_onevision_truth  # noqa: E402
import llava_truth  # noqa: E402
import minicpmv4_6_truth  # noqa: E402
import minicpmv_truth  # noqa: E402
import paddleocr_truth  # noqa: E402
import pixtral_truth  # noqa: E402
import qwen2vl_truth  # noqa: E402
import qwen3vl_truth  # noqa: E402
from mtmd_reference import embeddings  # noqa: E402
from vision_truth import picture  # noqa: E402

GEMMA4, UNIFIED = gemma4_vision_truth.TOWERS["gemma4_vision"], gemma4_unified_truth.TOWERS["gemma4_unified"]
NEXT = llava_next_truth.TOWERS | llava_onevision_truth.TOWERS  # whose SigLIP has no class row
SIXTEENTH, FOURTH = minicpmv4_6_truth.TOWERS.values()
# Pictures have as many rows as llama.cpp takes for granted.
LFM2 = replace(
    lfm2_vl_truth.TOWERS["lfm2_vl"], processor=lambda: lfm2_vl_truth.processor().of(least=64, most=256)
)  # fmt: skip
FAMILIES = {
    "gemma3": (gemma3_truth, gemma3_truth.gemma3_truth, (56, 56)),
    # Of as many squares as the tower is asked for: it counts them otherwise.
    "gemma4_vision": (GEMMA4, GEMMA4.make, (84, 120)),
    "gemma4_unified": (UNIFIED, UNIFIED.make, (42, 60)),
    "idefics3": (idefics3_truth, idefics3_truth.idefics3_truth, (192, 96)),
    "qwen2vl": (qwen2vl_truth, qwen2vl_truth.first_truth, (96, 64)),
    # Of the table's own grid: it stretches other ones by other rules.
    "qwen3vl": (qwen3vl_truth, qwen3vl_truth.third_truth, (96, 64)),
    # llama.cpp knows windows of 112 pixels alone.
    "qwen2.5vl": (qwen2vl_truth, lambda: qwen2vl_truth.second_truth(window=112), (160, 120)),
    "internvl": (internvl_truth, internvl_truth.internvl_truth, (24, 24)),  # it cuts other tiles of larger ones
    "llava": (llava_truth, llava_truth.llava_truth, (48, 48)),
    "llava next": (NEXT["llava next of vicuna"], NEXT["llava next of vicuna"].make, (64, 32)),
    "llava onevision": (NEXT["llava onevision"], NEXT["llava onevision"].make, (64, 32)),
    # llama.cpp knows tables of 70 x 70 alone, and pads slices to the shape that they are stretched to here.
    "minicpmv2.5": (minicpmv_truth.TOWERS["minicpmv2.5"], lambda: minicpmv_truth.wide("2.5"), (192, 96)),
    "minicpmv2.6": (minicpmv_truth.TOWERS["minicpmv2.6"], lambda: minicpmv_truth.wide("2.6"), (48, 48)),
    "minicpmv4.5": (minicpmv_truth.TOWERS["minicpmv4.5"], lambda: minicpmv_truth.wide("4.5"), (96, 192)),
    "pixtral": (pixtral_truth.TOWERS["pixtral"], pixtral_truth.pixtral_truth, (96, 64)),
    "mistral small": (pixtral_truth.TOWERS["mistral small"], pixtral_truth.mistral3_truth, (96, 64)),
    "qwen35": (qwen3vl_truth, qwen3vl_truth.newer_truth, (96, 64)),
    "lfm2_vl": (LFM2, LFM2.make, (96, 64)),
    "minicpmv4_6": (SIXTEENTH, lambda: minicpmv4_6_truth.make("16x", table=70), (48, 48)),
    "minicpmv4_6 4x": (FOURTH, lambda: minicpmv4_6_truth.make("4x", table=70), (48, 48)),
    "glm4v": (glm4v_truth, glm4v_truth.make, (24, 24)),
    "glm4v_moe": (glm4v_truth, glm4v_truth.make_mixture, (24, 24)),
    "glm_ocr": (glm4v_truth, glm4v_truth.make_ocr, (64, 64)),
    "paddleocr": (paddleocr_truth, paddleocr_truth.make, (64, 48)),
    "dots.ocr": (dotsocr_truth, dotsocr_truth.make, (64, 64)),
}

OTHERWISE = (
    *("gemma3", "llava", "llava next", "llava onevision", "internvl", "minicpmv2.6", "minicpmv4.5"),
    *("minicpmv4_6", "minicpmv4_6 4x"),
)


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request, tmp_path_factory):
    """A family's name, its files in F16, and a picture that fits its tower."""
    module, make, size = FAMILIES[request.param]
    folder = tmp_path_factory.mktemp(request.param.replace(".", "_"))
    make().save_pretrained(folder / "hf")
    module.processor().image_processor.save_pretrained(folder / "hf")
    module.processor().tokenizer.save_pretrained(folder / "hf")
    files = convert(folder / "hf", folder / "model.gguf", mmproj=folder / "mmproj.gguf", format="f16").paths
    return request.param, files, picture(*size)


def data_url(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def cosines(ours, theirs):
    return (ours * theirs).sum(-1) / np.linalg.norm(ours, axis=-1) / np.linalg.norm(theirs, axis=-1)


def test_embeddings_are_those_of_llama_cpp(pair, tmp_path, device):
    name, (model, mmproj), image = pair
    theirs = np.concatenate(embeddings(model, mmproj, np.asarray(image), tmp_path))
    with opsin.load(mmproj, threads=2) as tower:
        ours, grid = np.asarray(tower.encode(image)), tower.prepare(image).grid
    if name in pixtral_truth.TOWERS:
        high, wide = grid
        theirs = np.delete(theirs, np.arange(1, high) * (wide + 1) - 1, axis=0)
    if name in ("llava next", "llava onevision"):
        ours = without_newlines(ours)
    assert theirs.shape == ours.shape
    if name in ("llava", "internvl"):
        assert cosines(ours, theirs).max() < 0.99
        ours = as_llama_cpp_does(mmproj, image, device)
    assert cosines(ours, theirs).min() >= 0.999


def without_newlines(ours):
    """Two tiles, one after the other, then the whole. Here that comes first, and rows of the map end with newlines."""
    whole, tiles = ours[:25], ours[25:].reshape(5, 11, -1)[:, :10].reshape(5, 2, 5, -1)
    return np.concatenate([tiles.swapaxes(0, 1).reshape(50, -1), whole])


def as_llama_cpp_does(mmproj, image, device):
    """Embeddings with the class row after the patches."""
    with File.open(mmproj) as file:
        encoder = load_encoder(file, FileReader(file, device.eager()))
        positions = FileReader(file, device.eager()).values("v.position_embd.weight")
    tower, (span,) = encoder.tower, encoder.layout(open_picture(image)).spans
    grid, given = tower.shape.grid, span.features.make()[None]
    class_row = tower.position_embeddings.numpy()[0] - positions[0]
    order = block_order(grid, grid, encoder.preparation.block)
    shifted = tower.ops.constant(np.concatenate([(class_row + positions[-1])[None], positions[order]]))
    wrong = replace(encoder, tower=replace(tower, position_embeddings=shifted))
    if not hasattr(encoder, "layers"):
        return wrong.encode(given).numpy()
    tower, ops = wrong.tower, tower.ops
    x = tower.run(tower.embed(given), [attention_spans(ops, [0, 65], 1)] * encoder.layers[0])
    kept = ops.take(x, ops.constant(np.int32([*range(2, 65), 0])))
    return encoder.projector.down(encoder.projector.up(kept, activation="gelu")).numpy()


def test_the_best_token_is_that_of_llama_cpp(pair):
    name, (model, mmproj), image = pair
    if name in OTHERWISE:
        pytest.skip("llama.cpp leaves out newlines around a picture or its number, or sees another one")
    params = xllamacpp.CommonParams()
    params.model.path, params.mmproj.path = str(model), str(mmproj)
    params.n_ctx, params.n_parallel, params.warmup, params.use_jinja = 2048, 1, False, True
    server = xllamacpp.Server(params)
    questions = [f"What is this, number {number}?" for number in range(6)]
    theirs = [best_token(server, image, question) for question in questions]
    with opsin.load(model, mmproj=mmproj, threads=2) as ours:
        prompts = [ours.chat_prompt([{"role": "user", "content": [image, question]}]) for question in questions]
        best = [int(ours.logits(prompt)[-1].argmax()) for prompt in prompts]
    told = [(ours, theirs) for ours, theirs in zip(best, theirs, strict=True) if theirs is not None]
    assert told
    assert all(ours == theirs for ours, theirs in told)


def best_token(server, image, question):
    """The first id of llama.cpp's answer; None where it is part of a character, of which the server tells nothing."""
    parts = [{"type": "image_url", "image_url": {"url": data_url(image)}}, {"type": "text", "text": question}]
    request = {"messages": [{"role": "user", "content": parts}], "max_tokens": 1, "temperature": 0.0, "logprobs": True}
    reply = server.handle_chat_completions(request)
    reply = json.loads(reply) if isinstance(reply, str | bytes) else reply
    told = reply["choices"][0].get("logprobs")
    return told["content"][0]["id"] if told else None
