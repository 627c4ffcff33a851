"""How a checkpoint wants answers drawn and ended, as GGUF's keys; what those cannot say becomes a note.

As in transformers, generation_config.json counts alone where it is there; else config.json, and its text_config where
that is silent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from opsin.convert.checkpoint import read_config, read_json
from opsin.errors import FileError
from opsin.gguf import Typed, ValueType
from opsin.gguf.writer import Writable
from opsin.text.vocabulary import END_TEXTS, PREFIX

_FILE = "generation_config.json"
_SAMPLING = {"temperature": "temp", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p",
                    "repetition_penalty": "penalty_repeat"}  # fmt: skip
_DRAWN = {"temperature": 1.0, "top_k": 50, "top_p": 1.0, "min_p": 0.0}  # transformers' own, where it draws
_RANGES = {"temperature": (0, 100), "top_k": (-1, (1 << 31) - 1), "top_p": (0, 1), "min_p": (0, 1),
                  "repetition_penalty": (0, 1000)}  # fmt: skip
_MOST = 16  # notes on settings that have no key
# What needs no note: it is kept elsewhere, says how and not what, or changes nothing with this value.
_ELSEWHERE = (
    "eos_token_id", "bos_token_id", "pad_token_id", "decoder_start_token_id", "suppress_tokens", "do_sample",
    "use_cache", "cache_implementation", "cache_config", "compile_config", "disable_compile", "chat_format",
    "return_dict_in_generate", "max_new_tokens", "renormalize_logits", "remove_invalid_values", "trust_remote_code",
    "num_assistant_tokens", "num_assistant_tokens_schedule", "assistant_confidence_threshold", "assistant_lookbehind",
    "target_lookbehind", "prompt_lookup_num_tokens", "max_matching_ngram_size", "is_assistant", "max_time",
)  # fmt: skip
# Of models that transcribe, which say the first of them: the family's keys, or what the vocabulary tells.
_OF_SPEECH = (
    "no_timestamps_token_id", "alignment_heads", "begin_suppress_tokens", "forced_decoder_ids", "is_multilingual",
    "lang_to_id", "task_to_id", "max_initial_timestamp_index", "max_length", "prev_sot_token_id", "return_timestamps",
)  # fmt: skip
_NEUTRAL: Mapping[str, object] = {
    "max_length": 20, "num_beams": 1, "num_beam_groups": 1, "num_return_sequences": 1, "length_penalty": 1.0,
    "typical_p": 1.0, "repetition_penalty": 1.0, "encoder_repetition_penalty": 1.0, "guidance_scale": 1.0,
    "diversity_penalty": 0.0,
}  # fmt: skip


def generation_keys(folder: Path, texts: Sequence[str], eos: int | None) -> tuple[dict[str, Writable], list[str]]:
    """Keys and notes, for tokens of these texts of which `eos` is the tokenizer's end. Raises FileError."""
    config = _of_config(read_config(folder))
    if not (folder / _FILE).is_file():
        keys, notes = _ends(_ids(folder, config.get("eos_token_id")), texts, eos)
        return {**keys, **_sampling(folder / "config.json", config), **_suppressed(folder, config, len(texts))}, notes
    told = read_json(folder / _FILE)
    ends, others = (_ids(folder, settings.get("eos_token_id")) for settings in (told, config))
    keys, notes = _ends(ends or (others if eos is None else []), texts, eos)
    left = [id for id in others if id not in ends and id != eos]
    if left and ends:
        notes.append(f"config.json ends answers at {left} as well; {_FILE}, which counts, does not")
    notes += _left_out(told)
    return {**keys, **_sampling(folder / _FILE, told), **_suppressed(folder, told, len(texts))}, notes


def _of_config(config: Mapping[str, object]) -> Mapping[str, object]:
    """What config.json says, above what its text_config says."""
    text = config.get("text_config")
    inner = {key: value for key, value in text.items() if value is not None} if isinstance(text, Mapping) else {}
    return {**inner, **{key: value for key, value in config.items() if value is not None}}


def _ends(told: Sequence[int], texts: Sequence[str], eos: int | None) -> tuple[dict[str, Writable], list[str]]:
    """All ends where there are several: under a key for all; two of unknown texts under keys of their own as well."""
    notes = [
        f"the end of answers {id} is none of {len(texts)} tokens: it is left out" for id in told if id >= len(texts)
    ]
    ends = list(dict.fromkeys([*([] if eos is None else [eos]), *(id for id in told if id < len(texts))]))
    if not ends:
        return {}, [*notes, "no token ends an answer: answers go on until they are as long as they may be"]
    found: dict[str, Writable] = {f"{PREFIX}eos_token_id": Typed(ValueType.UINT32, ends[0])}
    if len(ends) == 1:
        return found, notes
    found[f"{PREFIX}eos_token_ids"] = Typed(ValueType.INT32, ends)
    strange = [id for id in ends[1:] if texts[id] not in END_TEXTS]
    for role, id in zip(("eot", "eom"), strange, strict=False):
        found[f"{PREFIX}{role}_token_id"] = Typed(ValueType.UINT32, id)
    if len(strange) > 2:
        shown = ", ".join(f"{texts[id]!r:.40}" for id in strange[2:6])
        notes.append(f"answers end at {shown}, too: other programs may have no key for so many")
    return found, notes


def _ids(where: Path, value: object) -> list[int]:
    listed = value if isinstance(value, list) else [] if value is None else [value]
    ids = [id for id in listed if type(id) is int and 0 <= id < 1 << 31]
    if len(ids) != len(listed):
        raise FileError(f"{where}: {value!r:.60} are no ids of tokens", hint="mend eos_token_id, or suppress_tokens")
    return ids


def _sampling(where: Path, settings: Mapping[str, object]) -> dict[str, Writable]:
    """What is said; where answers are drawn for certain, transformers' defaults too; where certainly not, that."""
    told = {name: settings[name] for name in _SAMPLING if settings.get(name) is not None}
    if settings.get("do_sample") is True:
        told = {**_DRAWN, **told}
    if settings.get("do_sample") is False:
        told["temperature"] = 0.0
    found: dict[str, Writable] = {}
    for name, value in told.items():
        least, most = _RANGES[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise FileError(f"{where}: {name} is {value!r:.40}, no number from {least} to {most}", hint="mend it")
        kind = ValueType.INT32 if name == "top_k" else ValueType.FLOAT32
        if not (name == "repetition_penalty" and value == 1):
            number = int(value) if name == "top_k" else float(value)
            found[f"general.sampling.{_SAMPLING[name]}"] = Typed(kind, number)
    return found


def _suppressed(folder: Path, settings: Mapping[str, object], tokens: int) -> dict[str, Writable]:
    ids = [id for id in _ids(folder, settings.get("suppress_tokens")) if id < tokens]
    return {f"{PREFIX}suppress_tokens": Typed(ValueType.INT32, ids)} if ids else {}


def _left_out(settings: Mapping[str, object]) -> list[str]:
    """What changes answers and has no key."""
    notes, known = [], _ELSEWHERE + (_OF_SPEECH if _OF_SPEECH[0] in settings else ())
    for name, value in settings.items():
        silent = value is None or value in (False, 0, "") or value == [] or value == {} or value == _NEUTRAL.get(name)
        if name in _SAMPLING or name in known or silent or name.startswith(("_", "output_", "transformers_")):
            continue
        notes.append(f"{_FILE}: {name!s:.60} is {value!r:.60}, for which GGUF has no key: it is left out")
    return [*notes[:_MOST], *([f"{_FILE}: ... and {len(notes) - _MOST} more"] if len(notes) > _MOST else [])]
