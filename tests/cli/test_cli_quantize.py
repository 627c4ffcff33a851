"""`opsin quantize`: what it says, what it writes, and how it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

import opsin
from opsin.cli import main
from opsin.cli.quantize import _Progress
from opsin.convert.quantise import preview
from opsin.gguf import File


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main.run(["quantize", *map(str, arguments)])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_it_writes_a_file_that_loads_and_says_what_it_did(
    tiny_file, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.gguf"
    code, said, complaint = run(capsys, tiny_file(width=256, ffn=256, head=64), out, "q4_k_m", "--threads", 2)
    assert (code, complaint) == (0, "")
    assert said.startswith(f"{out} has ")
    assert "Q4_K" in said
    assert "Q6_K" in said
    with opsin.load(out, threads=1, context=32) as model:
        assert len(model.complete("Hi", max_tokens=3, temperature=0.0).text) > 0


def test_the_file_to_write_is_named_as_in_all_commands(
    tiny_file, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.gguf"
    assert run(capsys, tiny_file(), "-o", out, "Q8_0")[0] == 0
    by_place = out.read_bytes()
    assert run(capsys, tiny_file(), "Q8_0", "--output", out, "-t", 1)[0] == 0
    assert out.read_bytes() == by_place
    assert run(capsys, tiny_file(), tmp_path / "third.gguf", "Q8_0")[0] == 0
    assert (tmp_path / "third.gguf").read_bytes() == by_place
    assert "would have" in run(capsys, tiny_file(), "Q8_0", "--dry-run")[1]
    for words, said in (((out, "Q8_0", "-o", out), "two files to write"), (("Q8_0",), "say -o OUT")):
        code, told, complaint = run(capsys, tiny_file(), *words)
        assert (code, told) == (2, "") and said in complaint


def test_progress_says_how_far_it_is(tiny_file) -> None:
    planned = preview(tiny_file(), "Q8_0")
    progress = _Progress(planned)
    lines = []
    for place, choice in enumerate(planned.choices):
        lines.append(progress.line(choice, place, 3.0 * place))
        progress(choice, place)
    count = len(planned.choices)
    assert lines[0].startswith(f"1 of {count},   0%, 0:00  ")
    assert lines[-1].startswith(f"{count} of {count}, ")
    assert ", about 0:" in lines[-1]
    shares = [int(line.split(", ")[1].strip()[:-1]) for line in lines]
    assert shares == sorted(shares) and shares[-1] > 80


def test_formats_that_rows_do_not_allow_are_told_on_stderr(
    tiny_file, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, complaint = run(capsys, tiny_file(), tmp_path / "out.gguf", "Q4_K_S")
    assert code == 0
    assert "opsin: blk.*.attn_q.weight (3): rows of 64 are not whole blocks of Q4_K, so Q5_0 instead" in complaint
    assert "opsin: blk.*.attn_v.weight (3): rows of 64 are not whole blocks of Q5_K, so Q5_1 instead" in complaint
    with File.open(tmp_path / "out.gguf") as file:
        assert file.tensors["blk.0.attn_q.weight"].kind.name == "Q5_0"


def test_a_dry_run_lists_tensors_and_writes_nothing(
    tiny_file, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said, _ = run(capsys, tiny_file(), tmp_path / "out.gguf", "Q6_K", "--dry-run")
    lines = said.splitlines()
    assert code == 0
    assert any(line.split()[:6] == ["blk.1.ffn_up.weight", "96", "x", "64", "F32", "Q8_0"] for line in lines)
    assert any(line.split()[:4] == ["output_norm.weight", "64", "F32", "kept"] for line in lines)
    assert lines[-1].startswith(f"{tmp_path / 'out.gguf'} would have ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("target", "mix", "code", "said"),
    [
        ("out.gguf", "Q9", 2, "there is no type 'Q9' (give one of F32, F16"),
        ("in.gguf", "Q8_0", 2, "in.gguf is a file to read"),
        ("none/out.gguf", "Q8_0", 2, "there is no folder"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    tiny_file, tmp_path: Path, capsys: pytest.CaptureFixture[str], target: str, mix: str, code: int, said: str
) -> None:
    (tmp_path / "in.gguf").write_bytes(tiny_file().read_bytes())
    got, out, complaint = run(capsys, tmp_path / "in.gguf", tmp_path / target, mix)
    assert (got, out) == (code, "")
    assert said in complaint
    assert complaint.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in.gguf"]


def test_a_quantised_file_is_taken_only_when_asked(
    quantised_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, complaint = run(capsys, quantised_file, tmp_path / "out.gguf", "Q4_0")
    assert code == 2
    assert "attn_k.weight is Q8_0 already" in complaint
    assert run(capsys, quantised_file, tmp_path / "out.gguf", "Q4_0", "--allow-requantize")[0] == 0
    assert (tmp_path / "out.gguf").exists()
