"""Templates that are known by name print what llama.cpp's of the same name print.

named_templates.json holds what `llama_chat_apply_template` of llama.cpp b11434 made of MESSAGES.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from opsin.text import ChatTemplate
from opsin.text.named_templates import NAMED_TEMPLATES

MESSAGES = [
    {"role": "system", "content": "Sys "},
    {"role": "user", "content": " A"},
    {"role": "assistant", "content": " B "},
    {"role": "user", "content": "C "},
]
PRINTED = json.loads(Path(__file__).with_name("named_templates.json").read_text("utf-8"))


def test_each_has_a_print():
    assert NAMED_TEMPLATES.keys() == PRINTED.keys()


@pytest.mark.parametrize("name", PRINTED)
def test_it_prints_what_llama_cpp_prints(name):
    template = ChatTemplate(NAMED_TEMPLATES[name])
    assert template.render(MESSAGES) == PRINTED[name]
    begun, closed = (template.render(MESSAGES[:2], add_generation_prompt=more) for more in (True, False))
    assert begun.startswith(closed) and PRINTED[name].startswith(begun.rstrip())
    assert template.render([{"role": "user", "content": "it\\n's {{ 1 }}"}]).count("it\\n's {{ 1 }}") == 1
