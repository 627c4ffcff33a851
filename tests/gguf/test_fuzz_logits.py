"""A short round of damaged models to first logits, and proof that the fuzzer notices what it looks for."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

from opsin.engine.runner import Runner
from opsin.gguf import File
from opsin.text.vocabulary import Vocabulary

sys.path.insert(0, str(Path(__file__).parent))
import fuzz_logits


def test_damaged_models_answer_or_are_refused(tmp_path: Path) -> None:
    outcomes = Counter(outcome for _, outcome, _ in fuzz_logits.run(11, 60, tmp_path))
    assert not [outcome for outcome in outcomes if outcome.startswith("BUG")], outcomes
    assert sum(outcomes.values()) == 60
    assert outcomes["answered"] > 8
    assert outcomes["refused: ModelError"] > 8
    assert outcomes["closed"] < 10


def test_the_seeds_are_sound(tmp_path: Path) -> None:
    for seed in fuzz_logits.make_seeds():
        seed.save(tmp_path / "seed.gguf")
        assert fuzz_logits.examine(tmp_path / "seed.gguf") == "answered"


def test_a_mutant_depends_on_its_number_alone(tmp_path: Path) -> None:
    seeds = fuzz_logits.make_seeds()
    bytes_of = []
    for number in (5, 9, 5):
        fuzz_logits.write_mutant(seeds, 1, number, tmp_path / "mutant.gguf")
        bytes_of.append((tmp_path / "mutant.gguf").read_bytes())
    assert bytes_of[0] == bytes_of[2] != bytes_of[1]


def test_an_error_that_is_not_ours_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(self: Vocabulary, metadata: dict[str, object], defaults: object) -> None:
        raise TypeError("object of type 'int' has no len()")

    fuzz_logits.make_seeds()[0].save(tmp_path / "seed.gguf")
    monkeypatch.setattr(Vocabulary, "__init__", careless)
    with pytest.raises(TypeError):
        fuzz_logits.examine(tmp_path / "seed.gguf")


def test_an_error_that_the_engine_hides_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(self: Runner, *_: object) -> None:
        raise TypeError("object of type 'int' has no len()")

    fuzz_logits.make_seeds()[0].save(tmp_path / "seed.gguf")
    monkeypatch.setattr(Runner, "step", careless)
    with pytest.raises(TypeError):
        fuzz_logits.examine(tmp_path / "seed.gguf")


def test_a_worker_that_dies_is_noticed_and_the_rest_examined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "worker.py"
    script.write_text(
        "import sys, os, json\n"
        "first, rounds = int(sys.argv[sys.argv.index('--first') + 1]), int(sys.argv[sys.argv.index('--rounds') + 1])\n"
        "for number in range(first, first + rounds):\n"
        "    print(json.dumps({'number': number}), flush=True)\n"
        "    if number == 1: print('why', file=sys.stderr, flush=True); os.abort()\n"
        "    print(json.dumps({'number': number, 'outcome': 'fine', 'seconds': 0.0}), flush=True)\n"
    )
    monkeypatch.setattr(fuzz_logits, "__file__", str(script))
    found = list(fuzz_logits.run(1, 4, tmp_path))
    assert [(number, outcome[:20]) for number, outcome, _ in found] == [
        (0, "fine"), (1, "BUG worker ended wit"), (2, "fine"), (3, "fine"),
    ]  # fmt: skip
    assert found[1][1].endswith("why\n")


def test_a_changed_mutant_still_opens_as_a_file(tmp_path: Path) -> None:
    dice = fuzz_logits.random.Random(4)
    for seed in fuzz_logits.make_seeds():
        fuzz_logits.mutate(seed, dice).save(tmp_path / "mutant.gguf")
        with File.open(tmp_path / "mutant.gguf") as file:
            assert len(file.tensors) > 5
