"""Fields that mean something to other servers and that this one cannot honour: refused by name, never left aside.

Each stands with the values that ask for nothing, as those servers have it (OpenAI, llama-server, vLLM, TGI and others).
What nobody listed is left aside, as llama-server leaves it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from opsin.api.messages import names_media
from opsin.serve.errors import FieldError
from opsin.serve.fields import Fields

Harmless = Mapping[str, tuple[object, ...]]

# Of a message, and of a picture's part.
MESSAGE: Final[Harmless] = {"prefix": (False,), "partial": (False,), "text": ("",)}
PART: Final[Harmless] = dict.fromkeys(("min_pixels", "max_pixels", "resized_height", "resized_width"), ())

# Of conversations: what changes the prompt, for whoever answers, counts or writes one.
CONVERSATION: Final[Harmless] = {
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "chat_template": ("",),
    "chat_template_kwargs": ({},),
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
    "add_special_tokens": (False,),
    "enable_thinking": (),
    "think": (),
    "thinking": ({},),
    "reasoning": ({},),
    "reasoning_effort": ("minimal", "low", "medium", "high", "xhigh", "max"),
    "prompt": ("", []),
    "safe_prompt": (False,),
}
# Of prompts as they stand.
RAW: Final[Harmless] = {
    "messages": ([],),
    "suffix": ("",),
    "input_prefix": ("",),
    "input_suffix": ("",),
    "input_extra": ([],),
    "add_special_tokens": (True,),
    "context": ([],),
    "response_fields": ([],),
    "return_full_text": (False,),
}
# Of both.
PROMPT: Final[Harmless] = {
    "mm_processor_kwargs": ({},),
    "truncate_prompt_tokens": (),
    "truncate": (),
    "system": ("",),
    "instructions": ("",),
    "input": ("", []),
    "inputs": ("", []),
    "template": ("",),
    "options": ({},),
    "extra_body": ({},),
    "parameters": ({},),
    "num_ctx": (),
    "lora": ([],),
    "adapter_id": ("",),
    "cache_salt": ("",),
}
# What changes which tokens are chosen, where an answer ends, or what is told of it.
ANSWER: Final[Harmless] = {
    "logit_bias": ({}, []),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repeat_penalty": (1,),
    "repetition_penalty": (1,),
    "encoder_repetition_penalty": (1,),
    "no_repeat_ngram_size": (0,),
    "penalty_alpha": (0,),
    "dry_multiplier": (0,),
    "dynatemp_range": (0,),
    "dynamic_temperature": (False,),
    "smoothing_factor": (0,),
    "mirostat": (0,),
    "mirostat_mode": (0,),
    "top_n_sigma": (-1,),
    "top_a": (0,),
    "tfs_z": (1,),
    "typical_p": (1,),
    "epsilon_cutoff": (0,),
    "eta_cutoff": (0,),
    "xtc_probability": (0,),
    "adaptive_target": (-1,),
    "min_keep": (0, 1),
    "samplers": (["top_k", "temperature", "min_p", "top_p"],),
    "do_sample": (True,),
    "use_beam_search": (False,),
    "num_beams": (1,),
    "best_of": (1,),
    "length_penalty": (1,),
    "early_stopping": (False,),
    "guidance_scale": (1,),
    "negative_prompt": ("",),
    "watermark": (False,),
    "grammar": ("",),
    "json_schema": ({},),
    "format": ("",),
    "structured_outputs": ({},),
    "structural_tag": (),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "allowed_token_ids": ([],),
    "bad_words": ([],),
    "logits_processors": ([],),
    "vllm_xargs": ({},),
    "modalities": (["text"],),
    "prediction": (),
    "web_search_options": (),
    "verbosity": ("medium",),
    "min_tokens": (0,),
    "min_length": (0,),
    "max_new_tokens": (),
    "max_output_tokens": (),
    "max_tokens_to_sample": (),
    "num_predict": (),
    "random_seed": (),
    "t_max_predict_ms": (-1, 0),
    "stop_sequences": ([],),
    "stop_token_ids": ([],),
    "include_stop_str_in_output": (False,),
    "skip_special_tokens": (True,),
    "thinking_budget_tokens": (-1,),
    "thinking_token_budget": (),
    "reasoning_budget": (-1,),
    "reasoning_budget_tokens": (-1,),
    "reasoning_format": ("none", "auto"),
    "thinking_forced_open": (False,),
    "include_reasoning": (True,),
    "echo": (False,),
    "n_indent": (0,),
    "prompt_logprobs": (),
    "post_sampling_probs": (False,),
    "top_n_tokens": (0,),
    "return_token_ids": (False,),
    "return_tokens_as_token_ids": (False,),
    "return_progress": (False,),
    "timings_per_token": (False,),
    "verbose": (False,),
}
_OURS: Final = {
    **dict.fromkeys(("max_new_tokens", "max_output_tokens", "max_tokens_to_sample", "num_predict"), "max_tokens"),
    "stop_sequences": "stop",
    "random_seed": "seed",
    "do_sample": "temperature: 0",
    **dict.fromkeys(("options", "parameters", "extra_body"), "what is in it beside it"),
    **dict.fromkeys(("system", "instructions"), 'a message of the role "system"'),
    **dict.fromkeys(("input", "inputs"), "messages, or a prompt"),
}
_PICTURES = (
    'send pictures as parts of a content: {"type": "image_url", "image_url": {"url": "data:image/png;base64,..."}}'
)
_RAW_PICTURES = 'send "prompt": {"prompt_string": "...", "multimodal_data": ["BASE64"]}'


def refuse(fields: Fields, *tables: Harmless, place: str = "") -> None:
    """Raises FieldError for a field that asks for what we cannot do."""
    for table in tables:
        for name, harmless in table.items():
            _, value = fields.get(name)
            if value is not None and value not in harmless:
                ours = _OURS.get(name)
                raise FieldError(place + name, "not supported yet", hint=f"send {ours}" if ours else "leave it out")


def refuse_media(holder: Mapping[str, Any], place: str = "", *, but: Collection[str] = (), raw: bool = False) -> None:
    """Raises FieldError for media where we do not look for them. `but` are the fields that are read there."""
    for name, value in holder.items():
        if value and name not in but and names_media(name):
            raise FieldError(place + name, "nothing is read from here", hint=_RAW_PICTURES if raw else _PICTURES)


def refuse_in_message(message: Mapping[str, Any], place: str) -> None:
    """The same for a message, and for what asks to go on with it."""
    refuse_media(message, place)
    refuse(Fields(message), MESSAGE, place=place)
