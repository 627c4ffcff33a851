"""`opsin doctor`: what it says, and that `--warm` leaves nothing to compile."""

from __future__ import annotations

import json
import platform
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_sight import tiny_pair

import opsin
from opsin.cli import doctor
from opsin.cli.doctor import examine
from opsin.cli.warm import warm
from opsin.config import from_environment
from opsin.ops import PageType


def test_the_page_names_what_matters(run) -> None:
    done = run("doctor")
    assert done.returncode == 0
    for word in ("processor", "instructions", "threads", "memory", "cache", "kernels", "weights", "limits", "llvmlite"):
        assert word in done.stdout
    assert done.stderr == ""


def test_the_object_holds_the_same(run) -> None:
    got = json.loads(run("doctor", "--json").stdout)
    assert got["processor"]["instructions"] in got["processor"]["instructions_available"]
    assert got["processor"]["instructions_available"][-1] == "portable"
    assert got["threads"] >= 1
    formats = {kind["name"]: kind for kind in got["formats"]}
    assert formats["Q4_0"]["memory_bytes"] == formats["Q4_0"]["file_bytes"] == 18 / 32
    assert not formats["F16"]["expanded"]
    assert formats["IQ1_M"]["expanded"]
    assert "linear" in got["kernels"]


def test_formats_that_take_more_than_their_file_are_marked(run) -> None:
    """With planes they do not, but for three whose weights are smaller than any plane or share packed scales."""
    formats = json.loads(run("doctor", "--json").stdout)["formats"]
    larger = {kind["name"]: kind["larger"] for kind in formats if kind["larger"] > 1.15 and not kind["expanded"]}
    assert larger == {"TQ1_0": 1.37, "Q1_0": 2.22}
    lines = {line.split()[0]: line for line in run("doctor").stdout.splitlines() if line.strip()}
    assert lines["TQ1_0"].endswith("1.37 times its size in the file")
    assert re.search(r"expanded  9.(14|29) times its size in the file$", lines["IQ1_M"])  # f16, or integers
    assert "times" not in lines["MXFP4"] + lines["IQ4_XS"] + lines["NVFP4"] + lines["Q4_K"]


def test_the_instruction_set_can_be_chosen(run) -> None:
    assert json.loads(run("doctor", "--json", OPSIN_ISA="portable").stdout)["processor"]["instructions"] == "portable"


@pytest.mark.parametrize(("system", "machine", "said"), [
    ("Linux", "x86_64", None), ("Linux", "aarch64", "only emulated processors"), ("Darwin", "arm64", "unproven"),
])  # fmt: skip
def test_it_says_where_opsin_was_not_run(monkeypatch, system: str, machine: str, said: str | None) -> None:
    told = {"system": lambda: system, "machine": lambda: machine, "python_version": platform.python_version}
    monkeypatch.setattr(doctor, "platform", SimpleNamespace(**told))
    lines = [line for line in examine(from_environment()).limits if line.startswith(f"{system} on {machine}: ")]
    assert len(lines) == (said is not None)
    assert said is None or said in lines[0]


@pytest.mark.parametrize(("version", "said"), [("3.11.7", False), ("3.13.0", False), ("3.19.0rc1", True)])
def test_it_says_which_python_did_not_run_the_tests(monkeypatch, version: str, said: bool) -> None:
    told = {"system": platform.system, "machine": platform.machine, "python_version": lambda: version}
    monkeypatch.setattr(doctor, "platform", SimpleNamespace(**told))
    line = "Python 3.19: unproven, the tests ran on 3.11, 3.12, 3.13"
    assert [text for text in examine(from_environment()).limits if text.startswith("Python")] == [line] * said


def test_a_cache_that_cannot_be_written_is_a_limit(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch(mode=0o400)
    report = examine(replace(from_environment(), cache=blocked / "cache"))
    assert report.cache.kernels == 0
    assert report.cache.writable is False
    assert any("OPSIN_CACHE" in line for line in report.limits)


def test_an_empty_cache_is_counted_as_empty(tmp_path: Path) -> None:
    (tmp_path / "kernels" / "other").mkdir(parents=True)
    (tmp_path / "kernels" / "other" / "gone-meanwhile.o").symlink_to("nowhere")
    assert examine(replace(from_environment(), cache=tmp_path)).cache.stale_bytes == 0
    cache = examine(replace(from_environment(), cache=tmp_path / "not" / "there")).cache
    assert (cache.writable, cache.kernels, cache.bytes, cache.stale_bytes) == (True, 0, 0, 0)


@pytest.mark.timeout(1200)  # compiles 98 kernels where the cache is empty: a minute of CPU, and more beside others
def test_after_warming_up_a_picture_compiles_nothing(tmp_path: Path) -> None:
    warm(from_environment(), lambda line: None)
    tiny_pair(tmp_path)
    told: list[str] = []
    with opsin.load(tmp_path / "model.gguf", context=256, sequences=1, notice=told.append) as model:
        picture = np.zeros((32, 32, 3), np.uint8)
        answer = model.chat([{"role": "user", "content": [picture, "?"]}], max_tokens=2, ignore_eos=True)
        list(answer)
        assert len(answer.ids) == 2
    usual = [line for line in told if "attend(" not in line or "vectors=4" in line]  # its heads of 16 and 32 are not
    assert usual == []


@pytest.mark.model
@pytest.mark.timeout(1200)
def test_after_warming_up_a_model_compiles_nothing(smollm2: Path) -> None:
    warm(from_environment(), lambda line: None)
    kinds: tuple[PageType, ...] = ("f16", "q8_0")
    for kind in kinds:
        with opsin.load(smollm2, threads=2, pages=kind) as model:
            assert model.tokenize("The sun shines on the sea. " * 30_000)
            assert model.device.code.compiled == 0
