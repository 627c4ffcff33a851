"""Chat templates by the names that llama.cpp gives them, for files that have none: what its users write on start lines.

They are written in Jinja, as those of files are, and print what llama.cpp's own of the same name print.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

_Turn = tuple[str, str]  # what stands before and behind a content


def _turns(
    system: _Turn, user: _Turn, assistant: _Turn, opening: str | None = None, *, start: str = "", trims: str = "",
) -> str:  # fmt: skip
    """A template that writes turn after turn.

    Args:
        opening: what begins an answer; by default what stands before one of the assistant's, without its last spaces.
        start: what stands before all of it.
        trims: roles whose contents lose the white space around them; * for all.
    """
    opening = assistant[0].rstrip(" ") if opening is None else opening
    parts = [_quoted(start), "{% for m in messages %}"]
    for word, role, turn in (("if", "system", system), ("elif", "user", user), ("else", "assistant", assistant)):
        trim = " | trim" if trims == "*" or role in trims.split() else ""
        test = "{% else %}" if word == "else" else f"{{% {word} m.role == '{role}' %}}"
        parts += [test, _quoted(turn[0]), f"{{{{ m.content{trim} }}}}", _quoted(turn[1])]
    parts += ["{% endif %}{% endfor %}{% if add_generation_prompt %}", _quoted(opening), "{% endif %}"]
    return "".join(parts)


def _same(before: str, behind: str, *, trims: bool = False) -> str:
    """Turns that differ by the role's name alone, which stands in place of ROLE."""
    head, tail = before.split("ROLE")
    return (
        f"{{% for m in messages %}}{_quoted(head)}{{{{ m.role }}}}{_quoted(tail)}"
        f"{{{{ m.content{' | trim' if trims else ''} }}}}{_quoted(behind)}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{_quoted(f'{head}assistant{tail}'.rstrip(' '))}{{% endif %}}"
    )


def _quoted(text: str) -> str:
    """A text as Jinja prints it: no line break of it may be taken for the template's own."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"{{{{ '{escaped}' }}}}" if text else ""


def _instructions(open: str, close: str, answer: str, *, system: _Turn = ("", "\n\n"), trims: str = "") -> str:
    """Mistral's first and Llama 2's: the system message stands within the first question."""
    trim, trim_answer = (" | trim" if trims in ("*", role) else "" for role in ("asked", "answer"))
    return (
        "{% set ns = namespace(open=false) %}{% for m in messages %}"
        f"{{% if m.role == 'system' %}}{_quoted(open + system[0])}{{{{ m.content{trim} }}}}{_quoted(system[1])}"
        "{% set ns.open = true %}{% elif m.role == 'user' %}"
        f"{{% if not ns.open %}}{_quoted(open)}{{% endif %}}{{{{ m.content{trim} }}}}{_quoted(close)}"
        f"{{% set ns.open = false %}}{{% else %}}{_quoted(answer)}{{{{ m.content{trim_answer} }}}}"
        "{{ '</s>' }}{% endif %}{% endfor %}"
    )


_GEMMA: Final = (
    "{% set ns = namespace(system='') %}{% for m in messages %}{% if m.role == 'system' %}"
    "{% set ns.system = m.content | trim %}{% else %}"
    "{{ '<start_of_turn>' }}{{ 'model' if m.role == 'assistant' else 'user' }}{{ '\\n' }}"
    "{% if ns.system and m.role != 'assistant' %}{{ ns.system }}{{ '\\n\\n' }}{% set ns.system = '' %}{% endif %}"
    "{{ m.content | trim }}{{ '<end_of_turn>\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)
_SENTENCE: Final = "<\uff5cend\u2581of\u2581sentence\uff5c>"
_GRANITE: Final = _same("<|start_of_role|>ROLE<|end_of_role|>", "<|end_of_text|>\n")
_EXAONE: Final = _turns(
    ("[|system|]", "[|endofturn|]\n"), ("[|user|]", "\n"), ("[|assistant|]", "[|endofturn|]\n"), trims="*"
)

NAMED_TEMPLATES: Final = MappingProxyType(
    {
        "bailing": _turns(("<role>SYSTEM</role>", ""), ("<role>HUMAN</role>", ""), ("<role>ASSISTANT</role>", "")),
        "chatglm3": _turns(
            ("<|system|>\n ", ""), ("<|user|>\n ", ""), ("<|assistant|>\n ", ""), "<|assistant|>", start="[gMASK]sop"
        ),
        "chatglm4": _turns(("<|system|>\n", ""), ("<|user|>\n", ""), ("<|assistant|>\n", ""), start="[gMASK]<sop>"),
        "chatml": _same("<|im_start|>ROLE\n", "<|im_end|>\n"),
        "command-r": _turns(
            ("<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
            ("<|START_OF_TURN_TOKEN|><|USER_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
            ("<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>", "<|END_OF_TURN_TOKEN|>"), trims="*",
        ),
        "deepseek": _turns(("", ""), ("### Instruction:\n", "\n"), ("### Response:\n", "\n<|EOT|>\n")),
        "deepseek2": _turns(("", "\n\n"), ("User: ", "\n\n"), ("Assistant: ", _SENTENCE)),
        "deepseek3": _turns(("", "\n\n"), ("<\uff5cUser\uff5c>", ""), ("<\uff5cAssistant\uff5c>", _SENTENCE)),
        "exaone-moe": _same("<|ROLE|>\n", "<|endofturn|>\n", trims=True),
        "exaone3": _EXAONE,
        "exaone4": _EXAONE,
        "falcon3": _same("<|ROLE|>\n", "\n"),
        "gemma": _GEMMA,
        "glmedge": _turns(("<|system|>\n", ""), ("<|user|>\n", ""), ("<|assistant|>\n", ""), "<|assistant|>"),
        "gpt-oss": _turns(
            ("<|start|>system<|message|>", "<|end|>"), ("<|start|>user<|message|>", "<|end|>"),
            ("<|start|>assistant<|message|>", "<|return|>"), "<|start|>assistant",
        ),
        "granite": _GRANITE,
        "granite-4.0": _GRANITE,
        "granite-4.1": _GRANITE,
        "grok-2": _turns(
            ("System: ", "<|separator|>\n\n"), ("Human: ", "<|separator|>\n\n"), ("Assistant: ", "<|separator|>\n\n"),
            trims="system user",
        ),
        "kimi-k2": _turns(
            ("<|im_system|>system<|im_middle|>", "<|im_end|>"), ("<|im_user|>user<|im_middle|>", "<|im_end|>"),
            ("<|im_assistant|>assistant<|im_middle|>", "<|im_end|>"),
        ),
        "llama2": _instructions("[INST] ", " [/INST]", "", system=("", "\n")),
        "llama2-sys": _instructions("[INST] ", " [/INST]", "", system=("<<SYS>>\n", "\n<</SYS>>\n\n")),
        "llama2-sys-strip": _instructions(
            "[INST] ", " [/INST]", "", system=("<<SYS>>\n", "\n<</SYS>>\n\n"), trims="*"
        ),
        "llama3": _same("<|start_header_id|>ROLE<|end_header_id|>\n\n", "<|eot_id|>", trims=True),
        "llama4": _same("<|header_start|>ROLE<|header_end|>\n\n", "<|eot|>", trims=True),
        "megrez": _same("<|role_start|>ROLE<|role_end|>", "<|turn_end|>"),
        "minicpm": _turns(("", ""), ("<\u7528\u6237>", "<AI>"), ("", ""), trims="*"),
        "mistral-v1": _instructions(" [INST] ", " [/INST]", " "),
        "mistral-v3": _instructions("[INST] ", "[/INST]", " ", trims="answer"),
        "mistral-v3-tekken": _instructions("[INST]", "[/INST]", ""),
        "mistral-v7": _turns(
            ("[SYSTEM_PROMPT] ", "[/SYSTEM_PROMPT]"), ("[INST] ", "[/INST]"), (" ", "</s>"), ""
        ),
        "mistral-v7-tekken": _turns(("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"), ("[INST]", "[/INST]"), ("", "</s>")),
        "openchat": _turns(
            ("", "<|end_of_turn|>"), ("GPT4 Correct User: ", "<|end_of_turn|>"),
            ("GPT4 Correct Assistant: ", "<|end_of_turn|>"),
        ),
        "phi3": _same("<|ROLE|>\n", "<|end|>\n"),
        "phi4": _same("<|im_start|>ROLE<|im_sep|>", "<|im_end|>"),
        "seed_oss": _turns(
            ("<seed:bos>system\n", "<seed:eos>"), ("<seed:bos>user\n", "<seed:eos>"),
            ("<seed:bos>assistant\n", "<seed:eos>"), trims="assistant",
        ),
        "smolvlm": _turns(
            ("", "\n\n"), ("User: ", "<end_of_utterance>\n"), ("Assistant: ", "<end_of_utterance>\n"),
            start="<|im_start|>",
        ),
        "solar-open": _turns(
            ("<|begin|>system<|content|>", "<|end|>"), ("<|begin|>user<|content|>", "<|end|>"),
            ("<|begin|>assistant<|content|>", "<|end|>"), "<|begin|>assistant",
        ),
        "vicuna": _turns(("", "\n\n"), ("USER: ", "\n"), ("ASSISTANT: ", "</s>\n")),
        "vicuna-orca": _turns(("SYSTEM: ", "\n"), ("USER: ", "\n"), ("ASSISTANT: ", "</s>\n")),
        "zephyr": _same("<|ROLE|>\n", "<|endoftext|>\n"),
    }
)  # fmt: skip
