"""Checkpoints of transformers' classes, saved by transformers, become files with the same logits."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

torch = pytest.importorskip("torch")
hf_folders = pytest.importorskip("hf_folders", reason="needs transformers")

import checkpoints  # noqa: E402
from by_hand import Sequence, distance, open_decoder, score  # noqa: E402

from opsin.convert.hf import convert  # noqa: E402
from opsin.errors import FileError  # noqa: E402
from opsin.gguf import File  # noqa: E402
from opsin.models import load_decoder  # noqa: E402
from opsin.nn.module import FileReader  # noqa: E402
from opsin.ops.reference import Reference  # noqa: E402

IDS = np.random.default_rng(3).integers(7, checkpoints.VOCABULARY, 120).tolist()
BANDS = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
         "original_max_position_embeddings": 64, "rope_theta": 1e4}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "rope_theta": 1e4, "beta_fast": 8.0}
VARIANTS = {
    "llama": ("llama", {}),
    "llama with biases and an output of its own": ("llama", {"attention_bias": True, "mlp_bias": True, "tied": False}),
    "llama with scaled bands": ("llama", {"rope_parameters": BANDS}),
    "llama with yarn": ("llama", {"rope_parameters": YARN}),
    "llama with yarn and a factor of its own": ("llama", {"rope_parameters": {**YARN, "attention_factor": 1.5}}),
    "llama with yarn that tells its strength in shares": (
        "llama", {"rope_parameters": {**YARN, "mscale": 0.7, "mscale_all_dim": 1.3}}
    ),
    "llama with experts": ("mixtral", {}),
    "mistral3": ("mistral3", {}),
    "mistral3 without yarn": ("mistral3", {"rope_parameters": {**checkpoints.YARN, "rope_type": "default"}}),
    "qwen2": ("qwen2", {}),
    "qwen2 untied": ("qwen2", {"tied": False}),
    "qwen3": ("qwen3", {}),
    "qwen3moe": ("qwen3moe", {}),
    "qwen3moe whose shares are as they are": ("qwen3moe", {"norm_topk_prob": False}),
    "glm4moe": ("glm4moe", {}),
    "gpt-oss": ("gpt-oss", {}),
    "gpt-oss without yarn": ("gpt-oss", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}),
    "qwen2vl": ("qwen2vl", {}),
    "qwen3vl": ("qwen3vl", {}),
    "qwen35": ("qwen35", {}),
    "qwen35moe": ("qwen35moe", {}),
    "qwen3next": ("qwen3next", {}),
    "qwen3vlmoe": ("qwen3vlmoe", {}),
    "gemma3": ("gemma3", {}),
    "gemma3 of the usual period": ("gemma3", {"layer_types": None}),
    "gemma3 of no period": (
        "gemma3", {"layer_types": [f"{'sliding' if i in (1, 4) else 'full'}_attention" for i in range(7)]}
    ),
    "gemma3 without windows": ("gemma3", {"layer_types": ["full_attention"] * 7}),
    "gemma3 with a scale of its own": ("gemma3", {"query_pre_attn_scalar": 16}),
    "gemma2": ("gemma2", {}),
    "gemma2 with a scale of its own, without bounds": (
        "gemma2", {"query_pre_attn_scalar": 16, "attn_logit_softcapping": None, "final_logit_softcapping": None}
    ),
    "phi3": ("phi3", {}),
    "phi3 with strength and factor of its own": ("phi3", {"rope_parameters": {**checkpoints.LONG, "factor": 32.0}}),
    "phi3 with a plain rope": (
        "phi3", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}, "sliding_window": None}
    ),
    "lfm2": ("lfm2", {}),
    "lfm2 whose FFN is told larger": ("lfm2", {"block_auto_adjust_ff_dim": True, "block_multiple_of": 24}),
    "smollm3": ("smollm3", {}),
    "smollm3 untied": ("smollm3", {"tied": False}),
    "paddleocr": ("paddleocr", {}),
    "ernie4_5": ("ernie4_5", {}),
    "ernie4_5 without biases": ("ernie4_5", {"use_bias": False}),
    "glm4": ("glm4", {}),
    "glm4 without biases": ("glm4", {"attention_bias": False}),
    "gemma4": ("gemma4", {}),
    "gemma4 without embeddings of layers and shared keys": (
        "gemma4", {"hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0, "use_double_wide_mlp": False}
    ),
    "gemma4 with experts": (
        "gemma4", {"enable_moe_block": True, "num_experts": 6, "top_k_experts": 2, "moe_intermediate_size": 40}
    ),
    "gemma4 with values of their own": ("gemma4", {"attention_k_eq_v": False, "num_global_key_value_heads": None}),
    "gemma4 of the usual period": (
        "gemma4", {"layer_types": None, "rope_parameters": None, "num_kv_shared_layers": 1}
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def ops(device):
    return device.eager()


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_equal_transformers(ops, tmp_path, variant):
    family, options = VARIANTS[variant]
    model = hf_folders.save(tmp_path / "hf", family, **options)
    (path,) = convert(tmp_path / "hf", tmp_path / "model.gguf", format="f32", vision=False).paths
    ours = score(ops, open_decoder(ops, path), Sequence(IDS))
    assert distance(ours, checkpoints.logits(model, IDS)) <= 1e-4


def test_experts_that_stand_as_inputs_by_outputs_are_turned(tmp_path):
    """As published checkpoints of the class hold them; transformers saves both."""
    from safetensors.torch import load_file, save_file

    for name, turned in (("one", False), ("other", True)):
        hf_folders.save(tmp_path / name, "qwen3vlmoe")
        path = tmp_path / name / "model.safetensors"
        tensors = load_file(path)
        for key in [key for key in tensors if ".experts." in key]:
            rows = {"gate_up_proj": 80, "down_proj": checkpoints.WIDTH}[key.rpartition(".")[2]]
            if (tensors[key].shape[1] != rows) != turned:
                tensors[key] = tensors[key].transpose(1, 2).contiguous()
        save_file(tensors, path)
    files = [
        convert(tmp_path / name, tmp_path / f"{name}.gguf", format="f32", vision=False).paths[0]
        for name in ("one", "other")
    ]
    with File.open(files[0]) as one, File.open(files[1]) as other:
        assert one.tensors["blk.0.ffn_gate_exps.weight"].shape == (6, 40, checkpoints.WIDTH)
        assert all(np.array_equal(one.read(name), other.read(name)) for name in one.tensors)


def _in_fours(folder, model):
    """Experts in MXFP4, as checkpoints are published; the model gets what transformers makes of them."""
    import json

    from safetensors.torch import load_file, save_file
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    random, tensors = torch.Generator().manual_seed(0), load_file(folder / "model.safetensors")
    with torch.no_grad():
        for key in [key for key in tensors if key.endswith(("gate_up_proj", "down_proj"))]:
            experts, inputs, outputs = tensors.pop(key).shape
            codes = torch.randint(0, 256, (experts, outputs, inputs // 32, 16), generator=random, dtype=torch.uint8)
            scales = torch.randint(122, 125, codes.shape[:3], generator=random, dtype=torch.uint8)
            tensors[f"{key}_blocks"], tensors[f"{key}_scales"] = codes, scales
            model.get_parameter(key).copy_(convert_moe_packed_tensors(codes, scales, dtype=torch.float32))
    save_file(tensors, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "mxfp4"}}))
    return tensors


def test_experts_in_four_bits_stay_as_they_are(ops, tmp_path):
    model = hf_folders.save(tmp_path / "hf", "gpt-oss")
    _in_fours(tmp_path / "hf", model)
    (path,) = convert(tmp_path / "hf", tmp_path / "model.gguf", format="f32").paths
    reference = Reference()
    with File.open(path) as file:
        assert file.tensors["blk.0.ffn_down_exps.weight"].kind.name == "MXFP4"
        decoder = load_decoder(file, FileReader(file, reference))
        gates = decoder.weights.blk[2].ffn.gates
    whole = model.model.layers[2].mlp.experts.gate_up_proj.detach().numpy()  # [experts, inputs, outputs]
    for which, part in enumerate((gates.gate, gates.up)):
        np.testing.assert_array_equal(part.weight.values, whole[:, :, which::2].swapaxes(1, 2))
    ours = score(ops, open_decoder(ops, path), Sequence(IDS))  # rows are rounded to 8 bits before such weights
    assert np.corrcoef(ours.reshape(-1), checkpoints.logits(model, IDS).reshape(-1))[0, 1] > 0.99


def test_codes_without_their_scales_are_refused(tmp_path):
    from safetensors.torch import save_file

    model = hf_folders.save(tmp_path / "hf", "gpt-oss")
    tensors = _in_fours(tmp_path / "hf", model)
    tensors.pop("model.layers.1.mlp.experts.down_proj_scales")
    save_file(tensors, tmp_path / "hf" / "model.safetensors")
    with pytest.raises(FileError, match="has no scales"):
        convert(tmp_path / "hf", tmp_path / "model.gguf")


def test_shards_are_read_as_one(tmp_path):
    model = hf_folders.save(tmp_path / "one", "llama")
    model.save_pretrained(tmp_path / "many", max_shard_size="60KB")
    hf_folders.plain().save_pretrained(tmp_path / "many")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 2
    files = [convert(tmp_path / name, tmp_path / f"{name}.gguf", format="f32").paths[0] for name in ("one", "many")]
    with File.open(files[0]) as one, File.open(files[1]) as many:
        assert list(one.tensors) == list(many.tensors)
        assert all(np.array_equal(one.read(name), many.read(name)) for name in one.tensors)


def test_a_large_tensor_is_never_whole_in_memory(tmp_path):
    from safetensors.torch import load_file, save_file

    hf_folders.save(tmp_path / "hf", "qwen2")
    path = tmp_path / "hf" / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.0.mlp.up_proj.weight"] = torch.zeros(1 << 19, checkpoints.WIDTH)  # 134 MB
    save_file(tensors, path)
    del tensors
    tracemalloc.start()
    try:
        (made,) = convert(tmp_path / "hf", tmp_path / "model.gguf", format="f32").paths
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert made.stat().st_size > 134e6
    assert peak < 80e6


@pytest.mark.parametrize("stored", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("format", ["bf16", "f16", "f32", "auto"])
def test_numbers_are_those_that_torch_rounds_to(tmp_path, stored, format):
    """Also where the file keeps the format of the checkpoint, and the bytes are copied."""
    kinds = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
    model = hf_folders.save(tmp_path / "hf", "qwen2").to(getattr(torch, stored))
    model.save_pretrained(tmp_path / "hf")
    (path,) = convert(tmp_path / "hf", tmp_path / "model.gguf", format=format).paths
    kind = kinds[format] if format != "auto" else torch.bfloat16 if stored == "bfloat16" else torch.float16
    query = model.model.layers[0].self_attn.q_proj
    wanted = {
        "token_embd.weight": model.model.embed_tokens.weight.detach().to(kind),
        "blk.0.attn_q.weight": query.weight.detach().to(kind),
        "blk.0.attn_q.bias": query.bias.detach().float(),
    }
    with File.open(path) as file:
        for name, values in wanted.items():
            assert file.read(name).tobytes() == values.contiguous().view(torch.uint8).numpy().tobytes(), name
