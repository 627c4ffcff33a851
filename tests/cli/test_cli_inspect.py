"""`opsin inspect`: counts of a real file, and files that opsin cannot run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_hearing import SECOND, WINDOW, hearing_metadata, hearing_tensors, tiny_hearing
from tiny_next_token import tiny_next_token
from tiny_sight import write_tower
from tiny_vision import tiny_projector

import opsin
from opsin import gguf
from opsin.cli import main
from opsin.cli.file_report import page, report_file


@pytest.mark.model
def test_a_real_file_is_counted(run, smollm2: Path) -> None:
    done = run("inspect", smollm2, "--json", "-c", 1000)
    got = json.loads(done.stdout)
    assert got["parameters"] == 134_515_008
    assert got["tensors"]["Q4_1"] == {"count": 210, "parameters": 106_168_320, "file_bytes": 66_355_200}
    assert got["context"] == 1000
    assert got["problem"] is None
    assert got["metadata"]["tokenizer.ggml.tokens"] == "49152 values"


@pytest.mark.model
def test_the_cache_is_what_a_loaded_model_takes(smollm2: Path) -> None:
    with gguf.File.open(smollm2) as file:
        contents = report_file(file, 1024)
    assert contents.cache_bytes is not None
    for kind, pages in (("f16", "f16"), ("q8_0", "q8_0")):
        with opsin.load(smollm2, threads=1, context=1024, sequences=1, pages=pages) as model:
            page = model.runner.cache_bytes / model.runner.limits.pages
            assert contents.cache_bytes[kind] == pytest.approx(page * 1024 / 64, rel=0.01)


def test_what_a_token_and_a_sequence_take_is_told(tiny_file) -> None:
    with gguf.File.open(tiny_file()) as file:
        contents = report_file(file, 64)
    assert contents.token_bytes == {kind: size / 64 for kind, size in contents.cache_bytes.items()}
    assert contents.state_bytes == 0
    assert " kB each" in page(contents)
    assert "states" not in page(contents).partition("metadata")[0]
    text = page(replace(contents, state_bytes=52690944))
    assert "\n  states         52.7 MB a sequence\n" in text


def test_a_layer_that_guesses_is_told_of(tmp_path: Path) -> None:
    with gguf.File.open(tiny_next_token(tmp_path / "next.gguf")) as file:
        contents = report_file(file, 64)
        size = sum(info.nbytes for name, info in file.tensors.items() if name.startswith("blk.3."))
    assert (contents.next_token_bytes, contents.guesses) == (size, True)
    assert "MB of a next-token layer (MTP), which guesses tokens ahead\n" in page(contents)
    assert "which is left aside\n" in page(replace(contents, guesses=False))


def test_an_unknown_family_is_shown_with_the_reason(run, tmp_path: Path) -> None:
    path = tmp_path / "new.gguf"
    tensor = gguf.NewTensor.of("some.weight", np.zeros((2, 32), np.float32))
    gguf.write(path, {"general.architecture": "never-heard-of", "general.name": "a\x1b[2Jb"}, [tensor])
    done = run("inspect", path)
    assert done.returncode == 0
    assert "never-heard-of" in done.stdout
    assert "cannot run" in done.stdout
    assert "\x1b" not in done.stdout
    assert json.loads(run("inspect", path, "--json").stdout)["weight_bytes"] is None


@pytest.mark.parametrize(("used", "active"), [(2, 32 + 256), (8, 32 + 1024), (9, 32 + 1024), ("two", 32 + 1024)])
def test_parameters_of_experts_are_counted_in_all_and_active(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], used: int | str, active: int
) -> None:
    """A count that means nothing leaves all of them."""
    path, shapes = tmp_path / "experts.gguf", {"some.weight": (32,), "blk.0.ffn_up_exps.weight": (8, 4, 32)}
    keys = {"general.architecture": "x", "x.expert_count": 8, "x.expert_used_count": used}
    gguf.write(path, keys, [gguf.NewTensor.of(name, np.zeros(shape, np.float32)) for name, shape in shapes.items()])
    with gguf.File.open(path) as file:
        report = report_file(file)
    assert (report.parameters, report.active_parameters) == (32 + 1024, active)
    assert ("passes through 288" in told(capsys, "inspect", path)) == (active == 288)


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main.run([*map(str, arguments)]) == 0
    return capsys.readouterr().out


def test_the_part_that_sees_is_shown_alone_and_in_one_file(
    tiny_file, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    eyes, one = tiny_projector(tmp_path / "eyes.gguf"), tmp_path / "one.gguf"
    assert "vision" not in told(capsys, "inspect", tiny_file()).splitlines()
    said = told(capsys, "merge", tiny_file(), eyes, "-o", one)
    assert said.startswith(f"{one} has ")
    for path in (eyes, one):
        lines = told(capsys, "inspect", path).splitlines()
        where = lines.index("vision")
        assert lines[where + 1].startswith("  projector 'gemma3', 39 tensors, ")
        assert lines[where + 2] == "  pictures  32 pixels a side, patches of 4"
        assert lines[where + 3] == "  network   2 layers of width 32, to embeddings of 64"
        assert lines[where + 5] == "  tokens    4 for a square picture"
        vision = json.loads(told(capsys, "inspect", path, "--json"))["vision"]
        with gguf.File.open(eyes) as file:
            assert vision["file_bytes"] == sum(info.nbytes for info in file.tensors.values())
    assert "opsin cannot run this model: it has no part for text" in told(capsys, "inspect", eyes)
    assert json.loads(told(capsys, "inspect", tiny_file(), "--json"))["vision"] is None


def test_the_part_that_hears_is_shown_alone_and_beside_one_that_sees(
    tiny_file, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for sees in (False, True):
        folder = tmp_path / str(sees)
        folder.mkdir()
        tiny_hearing(folder, sees=sees)
        report = json.loads(told(capsys, "inspect", folder / "mmproj.gguf", "--json"))
        assert (report["vision"] is not None) == sees
        audio = report["audio"]
        assert (audio["projector"], audio["bands"], audio["layers"], audio["width"]) == ("ultravox", 16, 2, 32)
        assert (audio["seconds"], audio["projection"], audio["memory_rows"]) == (WINDOW, 64, None)
        assert audio["token_rate"] == pytest.approx(SECOND, abs=0.6)  # windows end within a second
        assert audio["weight_bytes"] and audio["tensors"] == len(hearing_tensors())
        lines = told(capsys, "inspect", folder / "mmproj.gguf").splitlines()
        where = lines.index("audio")
        assert lines[where + 2] == "  network   2 layers of width 32, to embeddings of 64"
        assert lines[where + 4] == "  sounds    0.48 seconds at once in 16 mel bands"
        assert lines[where + 5] == "  tokens    12.5 a second"
    assert json.loads(told(capsys, "inspect", tiny_file(), "--json"))["audio"] is None


def test_a_part_that_hears_and_cannot_be_run_is_shown_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = {**hearing_metadata(), "clip.audio.block_count": 9}
    write_tower(tmp_path / "ears.gguf", keys, hearing_tensors())
    out = told(capsys, "inspect", tmp_path / "ears.gguf")
    assert "opsin cannot run this part: " in out and "2 of its 9 layers" in out


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"image_size": 33}, "clip.vision.image_size is 33"),
        ({"image_size": "big"}, "'clip.vision.image_size' is 'big'"),
        ({"block_count": 9}, "holds 2 of its 9 layers"),
    ],
)
def test_a_part_that_opsin_cannot_run_is_shown_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], keys: dict[str, object], said: str
) -> None:
    out = told(capsys, "inspect", tiny_projector(tmp_path / "eyes.gguf", **keys))
    assert "opsin cannot run this part: " in out
    assert said in out
