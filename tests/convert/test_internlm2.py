"""Checkpoints of InternLM2, whose class transformers does not have, written by hand; and InternVL's around them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
hf_folders = pytest.importorskip("hf_folders", reason="needs transformers")

import checkpoints  # noqa: E402
from by_hand import Sequence, distance, open_decoder, score  # noqa: E402
from checkpoints import CONTEXT, EPS, FFN, HEADS, KV, VOCABULARY, WIDTH  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
from internvl_truth import FOLD, LEAST, MARKER, MOST, PATCH, SIDE, TOWER, TOWERS, processor, truth_of  # noqa: E402
from vision_truth import picture, written  # noqa: E402

import opsin  # noqa: E402
from opsin.convert.hf import convert  # noqa: E402
from opsin.errors import OpsinError  # noqa: E402
from opsin.gguf import File  # noqa: E402
from opsin.models import load_encoder  # noqa: E402
from opsin.nn.module import FileReader  # noqa: E402
from opsin.ops.reference import Reference  # noqa: E402

IDS = np.random.default_rng(3).integers(7, VOCABULARY, 120).tolist()
NAMES = {"mlp.gate_proj": "feed_forward.w1", "mlp.up_proj": "feed_forward.w3", "mlp.down_proj": "feed_forward.w2",
         "self_attn.o_proj": "attention.wo", "input_layernorm": "attention_norm",
         "post_attention_layernorm": "ffn_norm", "embed_tokens": "tok_embeddings", "lm_head": "output"}  # fmt: skip
TEXT = {
    "architectures": ["InternLM2ForCausalLM"], "model_type": "internlm2", "vocab_size": VOCABULARY,
    "hidden_size": WIDTH, "intermediate_size": FFN, "num_hidden_layers": 3, "num_attention_heads": HEADS,
    "num_key_value_heads": KV, "max_position_embeddings": CONTEXT, "rms_norm_eps": EPS, "rope_theta": 5e4,
    "rope_scaling": {"type": "dynamic", "factor": 2.0}, "hidden_act": "silu", "bias": False,
    "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def packed(tensors, before=""):
    """A Llama's tensors as InternLM2 keeps them: of each group of heads the queries, the key and the value."""
    known, found = dict(tensors), {}
    for layer in range(3):
        q, k, v = (known.pop(f"model.layers.{layer}.self_attn.{name}_proj.weight") for name in "qkv")
        groups = [part.reshape(KV, -1, WIDTH // HEADS, WIDTH) for part in (q, k, v)]
        whole = torch.cat(groups, 1).reshape(-1, WIDTH).contiguous()
        found[f"{before}model.layers.{layer}.attention.wqkv.weight"] = whole
    for name, values in known.items():
        for theirs, ours in NAMES.items():
            name = name.replace(theirs, ours)
        found[before + name] = values
    return found


def save(folder, config, tensors):
    folder.mkdir()
    save_file({name: values.contiguous() for name, values in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    hf_folders.plain().save_pretrained(folder)


@pytest.fixture(scope="module")
def llama():
    return checkpoints.make("internlm2", tied=False)


@pytest.mark.parametrize("biased", [False, True])
def test_logits_of_a_checkpoint_equal_those_of_llama(device, tmp_path, biased):
    model = checkpoints.make("internlm2", tied=False, attention_bias=biased)
    tensors = packed(model.state_dict())
    for layer in range(3 if biased else 0):
        parts = [tensors.pop(f"model.layers.{layer}.self_attn.{name}_proj.bias") for name in "qkv"]
        whole = torch.cat([part.reshape(KV, -1, WIDTH // HEADS) for part in parts], 1)
        tensors[f"model.layers.{layer}.attention.wqkv.bias"] = whole.reshape(-1)
    save(tmp_path / "hf", TEXT, tensors)
    made = convert(tmp_path / "hf", tmp_path / "model.gguf", format="f32")
    ours = score(device.eager(), open_decoder(device.eager(), made.paths[0]), Sequence(IDS))
    assert distance(ours, checkpoints.logits(model, IDS)) <= 1e-4
    assert not [note for note in made.notes if "tie_word" in note]


@pytest.mark.parametrize("heads", [{"num_key_value_heads": 3}, {"num_attention_heads": 6}, {"num_attention_heads": 5}])
def test_heads_that_are_not_as_many_as_told_are_refused(llama, tmp_path, heads):
    save(tmp_path / "hf", TEXT | heads, packed(llama.state_dict()))
    with pytest.raises(OpsinError, match=r"rows are no \d groups of \d"):
        convert(tmp_path / "hf", tmp_path / "model.gguf", format="f32")


def of_its_own_code(model):
    """The tower's tensors as OpenGVLab names them."""
    names = {
        "layernorm_before": "norm1",
        "layernorm_after": "norm2",
        "lambda_1": "ls1",
        "lambda_2": "ls2",
        "encoder.layer.": "encoder.layers.",
        "attention.projection_layer": "attn.proj",
        "attention.": "attn.",
        "cls_token": "class_embedding",
        "position_embeddings": "position_embedding",
        "patch_embeddings.projection": "patch_embedding",
        "layer_norm": "0",
        "linear_1": "1",
        "linear_2": "3",
    }
    known, found = {}, {}
    for name, values in model.model.state_dict().items():
        if name.startswith(("vision_tower.", "multi_modal_projector.")):
            for theirs, ours in names.items():
                name = name.replace(theirs, ours)
            known[name.replace("vision_tower.", "vision_model.").replace("multi_modal_projector.", "mlp1.")] = values
    for name in [name for name in known if ".q_proj." in name]:
        whole = torch.cat([known.pop(name.replace("q_proj", f"{part}_proj")) for part in "qkv"])
        found[name.replace("q_proj", "qkv")] = whole
    return known | found  # fmt: skip


def chat_config(model):
    tower = {
        **TOWER,
        "architectures": ["InternVisionModel"],
        "model_type": "intern_vit_6b",
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "norm_type": model.config.vision_config.norm_type,
    }
    return {
        "architectures": ["InternVLChatModel"], "model_type": "internvl_chat", "llm_config": TEXT,
        "vision_config": tower, "downsample_ratio": 1 / FOLD, "force_image_size": SIDE, "dynamic_image_size": True,
        "use_thumbnail": True, "min_dynamic_patch": LEAST, "max_dynamic_patch": MOST, "ps_version": "v2",
        "select_layer": -1, "template": "internvl2_5", "auto_map": {"AutoModel": "modeling_internvl_chat.X"},
    }  # fmt: skip


@pytest.mark.parametrize("name", TOWERS)
def test_a_checkpoint_of_its_own_code_becomes_the_pair_that_transformers_class_becomes(llama, tmp_path, name):
    model = TOWERS[name].make()
    save(tmp_path / "hf", chat_config(model), of_its_own_code(model) | packed(llama.state_dict(), "language_model."))
    made = convert(tmp_path / "hf", tmp_path / "model.gguf", mmproj=tmp_path / "mmproj.gguf", format="f32")
    by_hand = TOWERS[name].write(tmp_path / "hand.gguf", model)
    with File.open(by_hand) as wanted, File.open(tmp_path / "mmproj.gguf") as found:
        assert sorted(found.tensors) == sorted(wanted.tensors)
        for tensor, info in wanted.tensors.items():
            assert found.tensors[tensor].shape == info.shape, tensor
            assert np.array_equal(found.read(tensor), wanted.read(tensor)), tensor
        for key, value in wanted.metadata.items():
            assert np.array_equal(found.metadata[key], value), key
        reader = FileReader(found, Reference())
        assert load_encoder(found, reader).width == WIDTH
        assert reader.unread() == ()
    ops = Reference()
    assert distance(score(ops, open_decoder(ops, made.paths[0]), Sequence(IDS[:20])),
                    checkpoints.logits(llama, IDS[:20])) <= 1e-4  # fmt: skip


def test_a_conversation_about_pictures_equals_transformers(tmp_path):
    """With Llama's text in transformers' class, and InternLM2's in the folder."""
    model, images = truth_of({"model_type": "llama", "head_dim": 16}), [picture(60, 44), picture(30, 90)]
    text = {name.replace("model.language_model", "model"): values for name, values in model.state_dict().items()
            if name.startswith(("model.language_model.", "lm_head."))}  # fmt: skip
    config = chat_config(model)
    config["llm_config"] = {**TEXT, "vocab_size": 300, "rms_norm_eps": 1e-6, "rope_theta": 1e4}
    save(tmp_path / "hf", config, of_its_own_code(model) | packed(text, "language_model."))
    processor().tokenizer.save_pretrained(tmp_path / "hf")
    convert(tmp_path / "hf", tmp_path / "model.gguf", mmproj=tmp_path / "mmproj.gguf", format="f32")
    with File.open(tmp_path / "model.gguf") as file:
        assert file.get_str("general.architecture") == "internlm2"
    asked = [["What is ", images[0], " and ", images[1], "?"]]
    inputs = processor()(text=[written(asked, MARKER)], images=images, return_tensors="pt")
    with torch.inference_mode():
        theirs = model(**inputs, use_cache=False).logits[0].numpy()
    with opsin.load(tmp_path / "model.gguf", threads=2, pages="f32", context=512) as ours:
        prompt = ours.chat_prompt([{"role": "user", "content": parts} for parts in asked])
        assert len(prompt) == inputs["input_ids"].shape[1]
        assert distance(ours.logits(prompt), theirs) <= 1e-4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ps_version": "v1"}, "ps_version is 'v1'"),
        ({"select_layer": -2}, "is -2"),
        ({"use_thumbnail": False}, "use_thumbnail is False"),
        ({"dynamic_image_size": False}, "dynamic_image_size is False"),
        ({"force_image_size": 2 * SIDE}, "force_image_size is 48"),
        ({"downsample_ratio": 0.0}, "downsample_ratio is 0.0"),
        ({"vision_config": {"hidden_act": "silu"}}, "hidden_act is 'silu'"),
        ({"vision_config": {"patch_size": [PATCH, PATCH + 1]}}, r"patch_size is \[4, 5\]"),
        ({"vision_config": {"image_size": "24"}}, "image_size"),
        ({"vision_config": {"use_qk_norm": True, "layer_norm_eps": 1e-5}}, "layer_norm_eps is 1e-05"),
    ],
)
def test_a_checkpoint_that_a_file_cannot_say_is_refused(llama, tmp_path, change, said):
    model = TOWERS["internvl"].make()
    config = chat_config(model)
    for name, value in change.items():
        config[name] = {**config[name], **value} if isinstance(value, dict) else value
    save(tmp_path / "hf", config, of_its_own_code(model) | packed(llama.state_dict(), "language_model."))
    with pytest.raises(OpsinError, match=said):
        convert(tmp_path / "hf", tmp_path / "model.gguf", mmproj=tmp_path / "mmproj.gguf", format="f32")
