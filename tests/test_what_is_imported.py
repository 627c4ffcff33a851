"""What a text answer does not need is imported where it is used: a start would wait for it."""

from __future__ import annotations

import json
import subprocess
import sys

HEAVY = (
    "PIL", "av", "email", "httpx2", "huggingface_hub", "importlib.metadata", "llguidance", "msgspec", "numba", "scipy",
    "soundfile", "soxr", "ssl", "starlette", "torch", "uvicorn", "opsin.api.speech.hearing", "opsin.api.vision",
    "opsin.convert.hf", "opsin.media.decode", "opsin.models.qwen2vl", "opsin.serve",
)  # fmt: skip
FIRST = ("numpy", "llvmlite", "jinja2", "tokenizers", "regex", *HEAVY)
ASK = """
import sys, opsin
print([name for name in {names} if name in sys.modules])
if {path!r}:
    with opsin.load({path!r}, threads=2, context=256) as model:
        model.chat("the rain", max_tokens=2).text
    print([name for name in {names} if name in sys.modules])
"""


def imported(names: tuple[str, ...], path: str = "") -> list[list[str]]:
    """Which of these modules are there after `import opsin`, and after an answer, in a process of its own."""
    code = ASK.format(names=names, path=path)
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return [json.loads(line.replace("'", '"')) for line in done.stdout.splitlines()]


def test_importing_opsin_imports_nothing_else() -> None:
    assert imported(FIRST) == [[]]


def test_a_text_answer_imports_nothing_of_pictures_sound_grammars_and_conversion(quantised_file) -> None:
    imported((), str(quantised_file))  # it compiles what no test before it has
    assert imported(HEAVY, str(quantised_file)) == [[], []]
