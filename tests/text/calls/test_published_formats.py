"""Calls as the templates in llama.cpp's sources print them are read back, whole and at any cut."""

from __future__ import annotations

from pathlib import Path

from replies import TOOLS, Arguments, printed, read

from opsin.text import ChatTemplate
from opsin.text.calls import ReplyFormat

CALLS: list[tuple[str, Arguments]] = [
    ("get_weather", {"city": "Ulm \"<b>\" & 'c' {d}", "days": 3, "exact": True, "options": {"a": {"b": [1.5, "x"]}}}),
    ("add_note", {"city": "ä\n\n\\ [x] </a>", "places": ["a", "b"]}),
]
SHORT: list[tuple[str, Arguments]] = [("add_note", {"city": "x<", "days": 12}), ("add_note", {})]
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
# Templates that print no call of these at all, or one that nobody can read back.
WITHOUT = {
    "HuggingFaceTB-SmolLM3-3B", "LFM2-8B-A1B", "LFM2.5-Instruct", "google-gemma-2-2b-it", "llama-cpp-rwkv-world",
    "ibm-granite-granite-3.3-2B-Instruct", "microsoft-Phi-3.5-mini-instruct",
    "fireworks-ai-llama-3-firefunction-v2",  # wants tools as a variable of its own
    "CohereForAI-c4ai-command-r-plus-tool_use",  # fails where a schema has an object without additionalProperties
    "llama-cpp-deepseek-r1",  # gives `tojson` what transformers' refuses
    "MiniMax-M3", "muse-glimmer", "LFM2.5-8B-A1B",
}  # fmt: skip


def check(path: Path) -> None:
    template = ChatTemplate(path.read_text(encoding="utf-8"), tokens=TOKENS)
    format = ReplyFormat.of(template)
    for calls, at_every_place in ((CALLS, False), (SHORT, True)):
        calls = calls if format.calls.frame.several else calls[:1]
        text = printed(template, format, calls)
        places = range(1, len(text)) if at_every_place else ()
        for pieces in ([text], [*text], *([text[:place], text[place:]] for place in places)):
            reply = read(format.parser(tools=TOOLS), pieces)
            assert reply.calls == calls, pieces
            assert len(reply.content.split()) <= 3, reply.content  # what ends a turn, and what closes thoughts in it


def test_published_templates(sources: Path) -> None:
    paths = sorted(path for path in sources.glob("*.jinja") if path.stem not in WITHOUT)
    assert len(paths) >= 50
    for path in paths:
        check(path)
