"""The towers of checkpoints, as transformers saves them, become the files that tests/models prove right."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
import idefics3_truth
import pixtral_truth
from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration
from truths import TOWERS

from opsin.convert.hf import convert
from opsin.errors import OpsinError
from opsin.gguf import File
from opsin.models import load_decoder, load_encoder
from opsin.nn.module import FileReader
from opsin.ops.reference import Reference

NEEDED_ELSEWHERE = {"resampler.pos_embed_k", "v.token_embd.img_break"}  # by llama.cpp


def spared(folder, names):
    """Tensors of a converted file that nobody here reads: llama.cpp wants them, or the file's mode does without."""
    merger = {name for name in names if name.startswith("v.vit_merger.")}
    heard = {name for name in names if name.startswith(("a.", "mm.a."))}  # the part for sound in the same file
    return NEEDED_ELSEWHERE | heard | (merger if folder.name.endswith(" 4x") else set())


@pytest.fixture(scope="module", params=TOWERS)
def saved(request, tmp_path_factory):
    """A truth, its model, and the folder that transformers made of it."""
    truth, folder = TOWERS[request.param], tmp_path_factory.mktemp("saved") / request.param
    model = truth.make()
    truth.save(model, folder)
    return truth, model, folder


def test_the_converted_tower_is_the_one_written_by_hand(saved, tmp_path):
    truth, model, folder = saved
    by_hand = truth.write(tmp_path / "hand.gguf", model)
    convert(folder, tmp_path / "model.gguf", mmproj=tmp_path / "mmproj.gguf", format="f32")
    with File.open(by_hand) as wanted, File.open(tmp_path / "mmproj.gguf") as made:
        assert set(wanted.tensors) <= set(made.tensors) <= set(wanted.tensors) | spared(folder, made.tensors)
        for name, info in wanted.tensors.items():
            assert made.tensors[name].shape == info.shape, name
            assert np.array_equal(made.read(name), wanted.read(name)), name
        for key, value in wanted.metadata.items():
            if key != "clip.vision.feed_forward_length" or value:
                assert np.array_equal(made.metadata[key], value), key
        assert made.get_str("general.type") == "mmproj"


@pytest.mark.parametrize("format", ["f16", "bf16", "q8_0"])
def test_every_format_loads_whole(saved, tmp_path, format):
    _, _, folder = saved
    convert(folder, tmp_path / "model.gguf", mmproj=tmp_path / "mmproj.gguf", format=format)
    with File.open(tmp_path / "mmproj.gguf") as file:
        reader = FileReader(file, Reference())
        load_encoder(file, reader)
        assert set(reader.unread()) <= spared(folder, file.tensors)
        types = {name: info.type for name, info in file.tensors.items()}
        assert types.get("v.position_embd.weight", 0) == 0
        is_kernel = len(file.tensors["v.patch_embd.weight"].shape) == 4  # else it is a matrix as others are
        assert not is_kernel or types["v.patch_embd.weight"] == (1 if format == "f16" else 0)


def test_one_file_holds_both_parts(saved, tmp_path):
    _, _, folder = saved
    (path,) = convert(folder, tmp_path / "one.gguf", format="f32").paths
    with File.open(path) as file:
        reader = FileReader(file, Reference())
        decoder = load_decoder(file, reader)
        assert load_encoder(file, reader).width == decoder.media_width
        assert decoder.width in (64, 256)
        assert set(reader.unread()) <= spared(folder, file.tensors)


@pytest.mark.parametrize("name", pixtral_truth.TOWERS)
def test_llama_cpp_finds_the_row_between_rows_of_a_picture(name, tmp_path):
    model = TOWERS[name].make()
    TOWERS[name].save(model, tmp_path / "hf")
    convert(tmp_path / "hf", tmp_path / "model.gguf", mmproj=tmp_path / "mmproj.gguf", format="f16")
    wanted = model.get_input_embeddings().weight[pixtral_truth.SPECIAL + 1].detach().numpy()
    with File.open(tmp_path / "mmproj.gguf") as file:
        assert np.array_equal(file.read("v.token_embd.img_break").view(np.float32), wanted)


def test_the_projection_that_is_stored_the_other_way_is_never_in_blocks(tmp_path):
    TOWERS["gemma3"].save(TOWERS["gemma3"].make(), tmp_path / "hf")
    convert(tmp_path / "hf", tmp_path / "model.gguf", mmproj=tmp_path / "mmproj.gguf", format="q8_0")
    with File.open(tmp_path / "mmproj.gguf") as file:
        assert file.tensors["mm.input_projection.weight"].type == 1
        assert file.tensors["v.blk.0.ffn_down.weight"].type == 1  # 80 inputs are no whole blocks
        assert file.tensors["v.blk.0.attn_q.weight"].type == 1


def test_smolvlm_is_the_same_family(tmp_path):
    tree = idefics3_truth.CONFIG.to_dict()
    for part in (tree, tree["vision_config"]):
        part["model_type"] = part["model_type"].replace("idefics3", "smolvlm")
    model = SmolVLMForConditionalGeneration(SmolVLMConfig(**tree)).eval()
    TOWERS["idefics3"].save(model, tmp_path / "hf")
    convert(tmp_path / "hf", tmp_path / "model.gguf", mmproj=tmp_path / "mmproj.gguf", format="f32")
    with File.open(tmp_path / "mmproj.gguf") as file:
        assert file.get_str("clip.projector_type") == "idefics3"
        assert np.array_equal(
            file.read("mm.model.fc.weight").view(np.float32),
            model.model.connector.modality_projection.proj.weight.detach().numpy().reshape(-1),
        )


CONFIG, PICTURES = "config.json", "preprocessor_config.json"


@pytest.mark.parametrize(
    ("family", "file", "change", "said"),
    [
        ("idefics3", PICTURES, {"do_image_splitting": False}, "not cut into tiles"),
        ("idefics3", PICTURES, {"max_image_size": {"longest_edge": 64}}, "tiles of 64 for a tower of 48"),
        ("llava", CONFIG, {"vision_feature_select_strategy": "full"}, "vision_feature_select_strategy is 'full'"),
        ("llava", CONFIG, {"vision_feature_layer": [-2, -9]}, r"vision_feature_layer is \[-2, -9\], of 4 layers"),
        ("llava", CONFIG, {"projector_hidden_act": "relu"}, "projector_hidden_act is 'relu'"),
        ("llava next of mistral", CONFIG, {"image_grid_pinpoints": [[30, 60], [30]]}, "pairs of sizes"),
        ("llava next of mistral", CONFIG, {"vision_feature_select_strategy": "full"}, "only .default. can be"),
        ("llava next of vicuna", CONFIG, {"vision_feature_select_strategy": "default"}, "only .full. can be"),
        ("llava onevision", CONFIG, {"vision_aspect_ratio": "square"}, "vision_aspect_ratio is .square."),
        ("qwen2.5vl", CONFIG, {"vision_config": {"fullatt_block_indexes": [0, 3]}}, "fullatt_block_indexes"),
        ("qwen3vl", CONFIG, {"vision_config": {"deepstack_visual_indexes": [2, 0]}}, r"indexes is \[2, 0\]"),
        ("qwen3vl", CONFIG, {"vision_config": {"deepstack_visual_indexes": [0, 4]}}, r"indexes is \[0, 4\]"),
        ("qwen3vl", CONFIG, {"vision_config": {"num_position_embeddings": 24}}, "24 positions are no square"),
        ("gemma3", CONFIG, {"vision_config": {"hidden_act": "relu"}}, "hidden_act is 'relu'"),
        ("llava", CONFIG, {"vision_config": {"model_type": "siglip_vision_model"}},
         "a tower of the kind 'siglip_vision_model' cannot.*known in this class: clip_vision_model, pixtral"),
        ("pixtral", CONFIG, {"vision_config": {"hidden_act": "gelu"}}, "hidden_act is 'gelu'"),
        ("pixtral", CONFIG, {"vision_config": {"rope_parameters": {"rope_theta": 5e5}}}, "rope_theta is 500000.0"),
        ("pixtral", CONFIG, {"vision_feature_layer": -2}, "vision_feature_layer is -2"),
        ("pixtral", CONFIG, {"vision_feature_select_strategy": "default"}, "only 'full' can be converted"),
        ("pixtral", "tokenizer.json", {"added_tokens": []}, r"tokenizer.json has no \[IMG_BREAK\]"),
        ("mistral small", CONFIG, {"text_config": {"rms_norm_eps": 1e-6}}, "rms_norm_eps is 1e-06"),
        ("internvl", CONFIG, {"vision_feature_layer": -2}, "vision_feature_layer is -2"),
        ("internvl", CONFIG, {"vision_config": {"use_mean_pooling": False}}, "use_mean_pooling is False"),
        ("internvl", CONFIG, {"vision_config": {"hidden_act": "gelu_new"}}, "hidden_act is 'gelu_new'"),
        ("internvl6b", CONFIG, {"vision_config": {"layer_norm_eps": 1e-5}}, "layer_norm_eps is 1e-05"),
        ("minicpmv2.5", CONFIG, {"scale_emb": 12}, "MiniCPMV cannot be converted"),  # 2.0 says no version either
        ("minicpmv2.6", CONFIG, {"version": 3.0}, "MiniCPMV cannot be converted"),
        ("minicpmv2.6", CONFIG, {"vision_config": {"hidden_act": "relu"}}, "hidden_act is 'relu'"),
    ],
)  # fmt: skip
def test_a_checkpoint_that_a_file_cannot_say_is_refused(tmp_path, family, file, change, said):
    TOWERS[family].save(TOWERS[family].make(), tmp_path / "hf")
    path = tmp_path / "hf" / file
    tree = json.loads(path.read_text())
    for name, value in change.items():
        tree[name] = {**tree[name], **value} if name.endswith("_config") else value
    path.write_text(json.dumps(tree))
    with pytest.raises(OpsinError, match=said):
        convert(tmp_path / "hf", tmp_path / "model.gguf", mmproj=tmp_path / "mmproj.gguf", format="f32")
