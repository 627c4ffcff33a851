"""What Ollama keeps beside a model's file, in GGUF's keys: parameters as JSON, and Go templates that are well known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from opsin.errors import FileError

_LARGEST: Final = 1e9
_NAMES: Final = {"temperature": "temp", "repeat_penalty": "penalty_repeat", "repeat_last_n": "penalty_last_n"}
# How a machine computes, which opsin finds out by itself, and what is no one's default.
_ASIDE: Final = frozenset(
    ("num_gpu", "num_thread", "num_batch", "main_gpu", "use_mmap", "use_mlock", "low_vram", "f16_kv", "numa",
     "vocab_only", "logits_all", "num_keep", "seed", "embedding_only", "num_gqa", "rope_frequency_base",
     "rope_frequency_scale")
)  # fmt: skip
_STOPS, _STOP_CHARACTERS = 64, 1 << 16  # of a request as well


@dataclass(frozen=True)
class Parameters:
    """Parameters as `Found` has them."""

    keys: Mapping[str, str | int | float] = field(default_factory=dict)
    context: int | None = None
    stop: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_parameters(given: Mapping[str, object], model: str) -> Parameters:
    """Knobs become `general.sampling.*`; num_ctx is the context. Raises FileError for values that cannot be so."""
    keys: dict[str, int | float] = {}
    context, notes, stop = None, [], tuple[str, ...]()
    for name, value in given.items():
        if name in _ASIDE or (name == "num_predict" and value in (-1, -2)):
            continue
        if name == "stop":
            stop = _stops(value, model)
            continue
        number = _number(value, f"parameter {name!r:.40} of {model}")
        if name == "num_ctx":
            context = int(number) if number >= 1 else None
        elif name == "num_predict":
            notes.append(f"{model}: num_predict {number} is not taken; give --max-tokens")
        else:
            keys[f"general.sampling.{_NAMES.get(name, name):.60}"] = number
    return Parameters(keys, context, stop, tuple(notes))


def _number(value: object, what: str) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST:
        raise FileError(f"{what} in Ollama's store is {value!r:.40}, which it cannot be", hint="set it again")
    return value


def _stops(value: object, model: str) -> tuple[str, ...]:
    """Texts that end an answer. Raises FileError for others, or for more than a request may have."""
    listed = value if isinstance(value, list) else [value]
    stops = tuple(dict.fromkeys(text for text in listed if isinstance(text, str) and text))
    if not all(isinstance(text, str) for text in listed) or len(stops) > _STOPS:
        raise FileError(f"parameter 'stop' of {model} in Ollama's store is {value!r:.40}, which it cannot be",
                        hint=f"set it again: at most {_STOPS} texts")  # fmt: skip
    if sum(map(len, stops)) > _STOP_CHARACTERS:
        raise FileError(f"parameter 'stop' of {model} in Ollama's store is too long", hint="set it again")
    return stops


_LOOP, _END = "{% for m in messages %}", "{% endfor %}"
_ASSISTANT = "{% if add_generation_prompt %}"
_CHATML: Final = (
    _LOOP + "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}" + _END
    + _ASSISTANT + "{{ '<|im_start|>assistant\n' }}{% endif %}"
)  # fmt: skip
_HEADER_IDS: Final = (
    _LOOP + "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content + '<|eot_id|>' }}" + _END
    + _ASSISTANT + "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)  # fmt: skip
_PIPES: Final = (
    _LOOP + "{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}" + _END
    + _ASSISTANT + "{{ '<|assistant|>\n' }}{% endif %}"
)  # fmt: skip
# A system message stands before what the user says first.
_GEMMA: Final = (
    "{% set ns = namespace(system='') %}" + _LOOP
    + "{% if m.role == 'system' %}{% set ns.system = m.content + '\n\n' %}{% elif m.role == 'assistant' %}"
    "{{ '<start_of_turn>model\n' + m.content + '<end_of_turn>\n' }}{% else %}"
    "{{ '<start_of_turn>user\n' + ns.system + m.content + '<end_of_turn>\n' }}{% set ns.system = '' %}{% endif %}"
    + _END + _ASSISTANT + "{{ '<start_of_turn>model\n' }}{% endif %}"
)  # fmt: skip
_MISTRAL: Final = (
    "{% set ns = namespace(system='') %}" + _LOOP
    + "{% if m.role == 'system' %}{% set ns.system = m.content + '\n\n' %}{% elif m.role == 'assistant' %}"
    "{{ ' ' + m.content + eos_token }}{% else %}{{ '[INST] ' + ns.system + m.content + ' [/INST]' }}"
    "{% set ns.system = '' %}{% endif %}" + _END
)  # fmt: skip
_VICUNA: Final = (
    _LOOP + "{% if m.role == 'system' %}{{ m.content + '\n' }}{% elif m.role == 'assistant' %}"
    "{{ 'ASSISTANT: ' + m.content + eos_token + '\n' }}{% else %}{{ 'USER: ' + m.content + '\n' }}{% endif %}" + _END
    + _ASSISTANT + "{{ 'ASSISTANT:' }}{% endif %}"
)  # fmt: skip
# What only one form writes; forms that share a word stand in an order.
_FORMS: Final = (
    (("<|im_start|>", "<|im_end|>"), _CHATML),
    (("<|start_header_id|>", "<|eot_id|>"), _HEADER_IDS),
    (("<start_of_turn>", "<end_of_turn>"), _GEMMA),
    (("<|user|>", "<|assistant|>", "<|end|>"), _PIPES),
    (("USER:", "ASSISTANT:"), _VICUNA),
    (("[INST]", "[/INST]"), _MISTRAL),
)
_FOREIGN: Final = ("<<SYS>>", "[SYSTEM_PROMPT]")  # of forms that are like Mistral's, and are not


def read_template(source: str) -> str | None:
    """The Jinja template of the same form as a Go template; None for forms that are not known."""
    if any(word in source for word in _FOREIGN):
        return None
    return next((jinja for words, jinja in _FORMS if all(word in source for word in words)), None)
