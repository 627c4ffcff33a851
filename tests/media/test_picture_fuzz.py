"""A short round of the fuzzer, and proof that it notices what it looks for."""

from __future__ import annotations

import random

import fuzz_pictures as fuzz
import pytest
from PIL import ImageFile

from opsin.errors import RequestError
from opsin.media import decode


def test_two_thousand_damaged_pictures_are_refused_or_read() -> None:
    outcomes = fuzz.run(2000, 7)
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"):
        assert outcomes[f"{kind} refused"] > 3 and outcomes[f"{kind} picture"] > 3
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_the_same_seed_makes_the_same_mutants() -> None:
    seeds = fuzz.make_seeds()
    first = [fuzz.mutate(seeds[0], seeds, random.Random(str(number))) for number in range(50)]
    assert first == [fuzz.mutate(seeds[0], seeds, random.Random(str(number))) for number in range(50)]
    assert len(set(first)) > 40


def test_another_exception_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyError("orientation")

    monkeypatch.setattr(decode, "read_header", fail)
    with pytest.raises(AssertionError, match="mutant 0 of seed 7: KeyError"):
        fuzz.run(5, 7)


def test_an_error_without_a_way_out_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RequestError("no")

    monkeypatch.setattr(decode, "read_header", fail)
    with pytest.raises(AssertionError, match="says too little"):
        fuzz.run(5, 7)


def test_a_decoder_that_never_ends_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: object) -> None:
        while True:
            pass

    monkeypatch.setattr(decode, "read_header", hang)
    monkeypatch.setattr(fuzz, "STUCK_SECONDS", 0.05)
    with pytest.raises(AssertionError, match="stuck"):
        fuzz.run(5, 7)
