"""A model is of the files that were opened, whatever comes to lie at their paths while it is loaded and afterwards."""

from __future__ import annotations

import numpy as np
import pytest
from test_api_pictures import ask, picture
from tiny_sight import tiny_pair, tiny_tower

import opsin
from opsin.api import loading
from opsin.convert.merge import merge
from opsin.errors import FileError


@pytest.fixture
def one_file(tmp_path):
    """A file that holds both parts, and another one of the same shapes with other weights for pictures."""
    text, tower = tiny_pair(tmp_path)
    merge(text, tower, tmp_path / "whole.gguf")
    (tmp_path / "later").mkdir()
    merge(text, tiny_tower(tmp_path / "idefics.gguf", "idefics3"), tmp_path / "later" / "other.gguf")
    return tmp_path / "whole.gguf", tmp_path / "later" / "other.gguf"


def test_a_file_that_is_replaced_between_its_two_parts_gives_one_model(one_file, monkeypatch):
    path, other = one_file
    with opsin.load(path, threads=1, context=256) as model:
        expected = model.encode(picture()).values
    load_decoder = loading.load_decoder

    def slowly(*parts):
        made = load_decoder(*parts)
        other.replace(path)
        return made

    monkeypatch.setattr(loading, "load_decoder", slowly)
    with opsin.load(path, threads=1, context=256) as model:
        assert not other.exists()
        assert np.array_equal(model.encode(picture()).values, expected)


@pytest.mark.parametrize("kind", ["whole", "pair", "tower"])
def test_what_lies_at_the_path_when_the_first_picture_comes_is_another_model(tmp_path, one_file, kind):
    path = {"whole": one_file[0], "pair": tmp_path / "model.gguf", "tower": tmp_path / "mmproj.gguf"}[kind]
    seeing = path if kind != "pair" else tmp_path / "mmproj.gguf"
    with opsin.load(path, threads=1, **({} if kind == "tower" else {"context": 256})) as model:
        expected = model.encode(picture()).values
    for last in ("replaced", "removed"):
        with opsin.load(path, threads=1, **({} if kind == "tower" else {"context": 256})) as model:
            whole = seeing.read_bytes()
            seeing.unlink()
            if last == "replaced":
                seeing.write_bytes(one_file[1].read_bytes())
            assert np.array_equal(model.encode(picture()).values, expected)
            seeing.unlink(missing_ok=True)
            seeing.write_bytes(whole)


def test_a_file_that_is_cut_while_it_is_open_is_an_error_and_no_signal(tmp_path):
    text, tower = tiny_pair(tmp_path)
    with opsin.load(text, threads=1, context=256) as model:
        whole = tower.read_bytes()
        tower.write_bytes(whole[:2000])
        with pytest.raises(FileError, match="bytes too early"):
            model.encode(picture())
        with pytest.raises(FileError, match="bytes too early"):
            model.chat(ask(picture()), max_tokens=1).text  # noqa: B018
        tower.write_bytes(whole)
        assert model.encode(picture()).values.shape
