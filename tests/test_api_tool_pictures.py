"""Results of tools that hold pictures, or parts of text, whatever form a template wants them in."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_sight import MARKERS, tiny_pair

import opsin

PICTURE = {"type": "image", "image": np.zeros((32, 32, 3), np.uint8)}
LOOP = (
    "{% for c in m.content or [] %}{% if c.type == 'image' %}MARKER{% else %}{{ c.text }}{% endif %}{% endfor %}"
)  # fmt: skip
TURN = (
    "{% for m in messages %}<|im_start|>{{ m.role + '\n' }}{% if m.role == 'tool' %}RESULT{% elif m.content is string "
    "%}{{ m.content }}{% else %}" + LOOP + "{% endif %}{% for t in m.tool_calls or [] %}<tool_call>"
    "{{ t.function.name }}{{ t.function.arguments | tojson }}</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
)
TEMPLATES = {
    "parts": TURN.replace("RESULT", "{% if m.content is string %}{{ m.content }}{% else %}" + LOOP + "{% endif %}"),
    "written out": TURN.replace("RESULT", "<r>{{ m.content }}</r>"),
    "joined": TURN.replace("RESULT", "{{ '<r>' + m.content + '</r>' }}"),
    "text alone": "{% for m in messages %}<|im_start|>{{ m.role + '\n' + m.content }}<|im_end|>\n{% endfor %}",
}


def conversation(*parts):
    call = {"id": "c1", "type": "function", "function": {"name": "shot", "arguments": "{}"}}
    return [
        {"role": "user", "content": "look"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": [*parts]},
    ]


@pytest.fixture(scope="module", params=TEMPLATES)
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    kind = next(iter(MARKERS))
    template = TEMPLATES[request.param].replace("MARKER", MARKERS[kind][0])
    tiny_pair(folder, kind, metadata={"tokenizer.chat_template": template})
    with opsin.load(folder / "model.gguf", threads=1, context=512, sequences=2) as made:
        yield made


def test_a_picture_in_a_result_stands_in_the_prompt_behind_its_text(model):
    text = {"type": "text", "text": "here it is"}
    written = model.write(conversation(text, PICTURE))
    assert written.count(model.picture_marker) == 1
    assert written.index("shot") < written.index("here it is") < written.index(model.picture_marker)
    question = model.question(conversation(text, PICTURE))
    assert len(question.pictures) == 1
    assert question.pictures[0].name == "messages[2].content[1]"


def test_parts_of_text_in_a_result_are_not_written_out_as_data(model):
    written = model.write(conversation({"type": "text", "text": "one"}, {"type": "text", "text": "two"}))
    assert "one" in written
    assert "two" in written
    assert "type" not in written
