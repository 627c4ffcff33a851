"""Templates render what transformers renders, and refuse what they refuse."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from jinja2 import TemplateError

from opsin.errors import ModelError, OpsinError, RequestError
from opsin.text import ChatTemplate, ContentForm

LLAMA4 = "transformers.models.llama4.processing_llama4"
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather <b> now",
        "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "Straße & Ort"}}},
    },
}
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"id": "abcdefghi", "type": "function", "function": {"name": "get_weather", "arguments": {"c": 1}}}],
}
ANSWER = {"role": "tool", "tool_call_id": "abcdefghi", "name": "get_weather", "content": '{"t": 20}'}


def user(content: object) -> dict[str, object]:
    return {"role": "user", "content": content}


CONVERSATIONS: list[tuple[list[dict[str, object]], list[dict[str, object]] | None]] = [
    ([user("Hi")], None),
    ([{"role": "system", "content": "Be brief."}, user("Hi <3 \"q\" & 'x'")], None),
    ([user("a"), {"role": "assistant", "content": "b"}, user("c\n")], None),
    ([user("a"), {"role": "assistant", "content": "<think>t</think>b"}, user("c")], None),
    ([user("w?")], [TOOL]),
    ([user("w?"), CALL, ANSWER, user("ok")], [TOOL]),
    ([user([{"type": "text", "text": "hi"}])], None),
    ([user([{"type": "image"}, {"type": "text", "text": "What is this?"}, {"type": "image"}])], None),
    ([user([{"type": "text", "text": "a"}]), {"role": "assistant", "content": "b"}, user([{"type": "image"}])], None),
]
LLAVA = """{% for m in messages %}{{ m.role | upper }}: {%
for part in m.content | selectattr('type', 'equalto', 'image') %}
<image>{{ '\n' }}{% endfor %}{% for part in m.content | selectattr('type', 'equalto', 'text') %}{{ part['text'] }}
{% endfor %}{% endfor %}"""
GEMMA = """{% for m in messages %}<start_of_turn>{{ m.role }}{{ '\n' }}{%
if m.content is string %}{{ m.content | trim }}
{% elif m.content is iterable %}{% for item in m.content %}{% if item.type == 'image' %}<start_of_image>{% elif
item.type == 'text' %}{{ item['text'] | trim }}{% endif %}{% endfor %}{% else %}{{ raise_exception('Invalid') }}
{% endif %}<end_of_turn>{{ '\n' }}{% endfor %}"""
QWEN = """{% set seen = namespace(pictures=0) %}{% for m in messages %}<|im_start|>{{ m.role }}{{ '\n' }}{%
if m.content is string %}{{ m.content }}{% else %}{%
for part in m.content %}{% if part.type == 'image' or 'image' in part %}
{% set seen.pictures = seen.pictures + 1 %}<|vision_start|><|image_pad|><|vision_end|>{% elif 'text' in part %}
{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>{{ '\n' }}{% endfor %}"""


def in_parts(message: dict[str, object]) -> dict[str, object]:
    content = message.get("content")
    return {**message, "content": [{"type": "text", "text": content}]} if isinstance(content, str) else message


GROWING = ("Kimi-K2-Instruct.jinja", "Kimi-K2-Thinking.jinja")  # they append to lists, which transformers refuses


def test_every_published_template_renders_as_transformers_does(sources: Path) -> None:
    renderer = pytest.importorskip("transformers.utils.chat_template_utils").render_jinja_template
    published = {path.name: path.read_text(encoding="utf-8") for path in sorted(sources.glob("*.jinja"))}
    named = published | shipped() | {"llava": LLAVA, "gemma": GEMMA, "qwen": QWEN}
    equal = 0
    for name, source in named.items():
        template = ChatTemplate(source, tokens=TOKENS)
        for messages, tools in CONVERSATIONS:
            if isinstance(messages[0]["content"], list) and template.capabilities.content == ContentForm.TEXT:
                continue
            given = [in_parts(m) for m in messages] if template.capabilities.content == ContentForm.PARTS else messages
            try:
                wanted = renderer([given], tools=tools, chat_template=source, add_generation_prompt=True, **TOKENS)[0][
                    0
                ]
            except (TemplateError, TypeError, ValueError, KeyError):
                if name in GROWING:
                    assert "<|tool_calls_section_begin|>" in template.render(messages, tools=tools)
                    continue
                with pytest.raises(OpsinError):
                    template.render(messages, tools=tools)
                continue
            assert template.render(messages, tools=tools) == wanted, name
            equal += 1
    assert len(published) > 60
    assert equal > 5 * len(named)


def shipped() -> dict[str, str]:
    """Templates that come with transformers' classes of models that see."""
    smolvlm = pytest.importorskip("transformers.models.smolvlm.processing_smolvlm").DEFAULT_CHAT_TEMPLATE
    return {"smolvlm": smolvlm, "llama4": importlib.import_module(LLAMA4).chat_template}


def test_pictures_are_taken_where_the_template_writes_something_for_them(sources: Path) -> None:
    templates = {path.stem: path.read_text(encoding="utf-8") for path in sources.glob("*.jinja")}
    for name, source in templates.items():
        assert ChatTemplate(source, tokens=TOKENS).capabilities.pictures == ("image" in source), name
    assert sum("image" in source for source in templates.values()) > 15


@pytest.mark.parametrize(
    ("name", "marker"),
    [
        ("smolvlm", "<image>"),
        ("llama4", "<|image|>"),
        ("llava", "<image>"),
        ("gemma", "<start_of_image>"),
        ("qwen", "<|vision_start|><|image_pad|><|vision_end|>"),
    ],
)
def test_every_picture_leaves_its_marker(name: str, marker: str) -> None:
    template = ChatTemplate((shipped() | {"llava": LLAVA, "gemma": GEMMA, "qwen": QWEN})[name], tokens=TOKENS)
    assert template.capabilities.pictures
    text = template.render([user([{"type": "image"}, {"type": "text", "text": "and"}, {"type": "image"}])])
    assert text.count(marker) == 2


@pytest.mark.parametrize(
    "part",
    [
        "{{ part.text }}\n",  # a line for every part
        "{{ part.text | default('[' ~ loop.index ~ ']') }}",  # the same for what it does not know
        "{{ part }}",  # the part itself, written out
        "{% if part.type != 'text' %}{{ raise_exception('text only') }}{% endif %}{{ part.text }}",
        "{% if part.type == 'image' %}<image>{% endif %}",  # texts get lost
    ],
)
def test_pictures_are_not_taken_where_nothing_tells_them_apart(part: str) -> None:
    source = "{% for m in messages %}{% for part in m.content %}" + part + "{% endfor %}{% endfor %}"
    assert not ChatTemplate(source).capabilities.pictures


def test_file_without_a_template_has_none() -> None:
    assert ChatTemplate.from_metadata({"tokenizer.ggml.model": "gpt2"}) is None


def test_tools_choose_the_variant_for_tools() -> None:
    template = ChatTemplate.from_metadata(
        {"tokenizer.chat_template": "plain", "tokenizer.chat_template.tool_use": "{{ tools | length }} tools"}
    )
    assert template is not None
    assert template.render([user("x")]) == "plain"
    assert template.render([user("x")], tools=[TOOL]) == "1 tools"


def test_special_tokens_have_their_names() -> None:
    metadata = {
        "tokenizer.chat_template": "{{ bos_token }}|{{ eos_token }}",
        "tokenizer.ggml.tokens": ["a", "<b>"],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 7,
    }
    template = ChatTemplate.from_metadata(metadata)
    assert template is not None
    assert template.render([]) == "<b>|"


def test_content_takes_the_form_that_the_template_wants() -> None:
    plain = ChatTemplate("{% for m in messages %}{{ m.content | trim }};{% endfor %}")
    assert plain.capabilities.content == ContentForm.TEXT
    assert plain.render([user([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])]) == "a\nb;"
    parts = ChatTemplate("{% for m in messages %}{% for p in m.content %}{{ p.text }},{% endfor %}{% endfor %}")
    assert parts.capabilities.content == ContentForm.PARTS
    assert parts.render([user("ab")]) == "ab,"


def test_picture_without_a_place_is_refused() -> None:
    with pytest.raises(RequestError, match="no place for content of the kind 'image'"):
        ChatTemplate("{{ messages[0].content }}").render([user([{"type": "image"}])])


def test_thoughts_have_every_name() -> None:
    template = ChatTemplate("{{ messages[0].reasoning_content }}{{ messages[0].thinking }}")
    assert template.render([{"role": "assistant", "content": "", "reasoning": "hm"}]) == "hmhm"


def test_refusal_of_the_template_is_the_requests_fault() -> None:
    with pytest.raises(RequestError, match="only users"):
        ChatTemplate("{{ raise_exception('only users') }}").render([user("x")])


def test_objects_reach_the_template_as_names_only() -> None:
    secret = type("Secret", (), {"text": "hidden"})()
    assert ChatTemplate("{{ x }}{{ x.text }}").render([], x=secret) == "<Secret>"


@pytest.mark.parametrize(
    "source", ["{% if %}", "{{ 1 / 0 }}", "{{ undefined_name.x }}", "{{ messages[0]() }}", "{{ [" * 400]
)
def test_template_that_fails_says_so(source: str) -> None:
    with pytest.raises(ModelError, match="chat template"):
        ChatTemplate(source).render([user("x")])
