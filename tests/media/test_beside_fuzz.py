"""A short round of the fuzzer of what stands beside the pixels, and proof that it notices what it looks for."""

from __future__ import annotations

import fuzz_beside as fuzz
import pytest

from opsin.media import decode
from opsin.media.formats import STRIP


def test_two_thousand_files_with_anything_beside_their_pixels_show_the_same_pixels() -> None:
    outcomes = fuzz.run(2000, 3)
    assert sum(outcomes.values()) == 2000
    for kind in ("JPEG", "PNG", "WEBP"):
        assert outcomes[f"{kind} noted"] > 10 and outcomes[f"{kind} silent"] > 10, outcomes


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_what_is_not_cut_out_is_noticed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "STRIP", {name: strip for name, strip in STRIP.items() if name != kind})
    with pytest.raises(AssertionError, match=f"mutant [0-9]+ of seed 3, {kind}: "):
        fuzz.run(2000, 3)
