"""Mixes give each tensor the format that llama.cpp gives it (recorded from llama-quantize by mix_files.py)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mix_files import CASES, RECORD, arrange, unpack

from opsin.convert.mix import ALIASES, MIXES, find_mix, plan
from opsin.errors import RequestError
from opsin.gguf import File

TYPES = json.loads(RECORD.read_text())


@pytest.fixture(scope="module", params=list(CASES))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    path = tmp_path_factory.mktemp("mix") / "model.gguf"
    CASES[request.param](path)
    return request.param, path


def test_every_tensor_gets_the_type_that_llama_cpp_gives_it(case: tuple[str, Path]) -> None:
    name, path = case
    with File.open(path) as file:
        for mix, types in TYPES[name].items():
            ours = {choice.info.name: choice.kind for choice in plan(file, MIXES[mix])}
            assert ours == dict(zip(arrange(ours), unpack(types), strict=True)), mix


def test_the_records_tell_mixes_and_models_apart() -> None:
    """llama.cpp itself aborts on a projector as Q2_K."""
    for name in CASES:
        assert set(MIXES) - set(TYPES[name]) == ({"Q2_K"} if "projector" in name else set())
        assert name == "odd" or len(set(TYPES[name].values())) >= 12


def test_a_type_is_found_in_either_case_and_by_its_short_name() -> None:
    assert find_mix("q4_k").name == "Q4_K_M"
    assert find_mix("Q8_0").file_type == 7
    assert all(find_mix(short).name == full for short, full in ALIASES.items())


def test_an_unknown_type_is_answered_with_those_there_are() -> None:
    with pytest.raises(RequestError, match=r"there is no type 'Q7_X' .*Q4_K_M.*Q3_K"):
        find_mix("Q7_X")
