"""What a model will take in memory is known from its headers."""

from __future__ import annotations

import pytest
from tiny import tiny_llama
from tiny_sight import tiny_pair

import opsin
from opsin.api.memory_need import memory_need
from opsin.errors import FileError, ModelError, OpsinError
from opsin.ops.cpu.arena import Arena


@pytest.mark.parametrize("options", [{"context": 64}, {"context": 640, "pages": "f32"}, {"sequences": 8}])
def test_it_is_at_least_what_is_taken_and_not_much_more(tmp_path, monkeypatch, options):
    path = tiny_llama(tmp_path / "a.gguf", width=256, layers=4)
    arenas, make = [], Arena.__init__

    def made(self, **how: object) -> None:
        make(self, **how)
        arenas.append(self)

    monkeypatch.setattr(Arena, "__init__", made)
    need = memory_need(path, **options)
    assert not arenas
    with opsin.load(path, threads=1, **options):
        taken = sum(arena.bytes for arena in arenas)
    assert 0.8 * taken < need < 2 * taken + (16 << 20)


def test_what_is_asked_for_counts(tmp_path):
    path = tiny_llama(tmp_path / "a.gguf")
    few, many = memory_need(path, context=64, sequences=1), memory_need(path, context=640, sequences=1)
    assert few < many
    assert memory_need(path, context=640, sequences=1, pages="f32") - many > many - few
    (tmp_path / "sees").mkdir()
    tiny_pair(tmp_path / "sees")
    sees = tmp_path / "sees" / "model.gguf"
    assert memory_need(sees, context=64) > memory_need(sees, vision=False, context=64)


def test_what_headers_say_wrong_is_known_before_anything_is_taken(tmp_path):
    path = tiny_llama(tmp_path / "a.gguf")
    with pytest.raises(OpsinError, match="context=9"):
        memory_need(path, context=9_000_000)
    (tmp_path / "sees").mkdir()
    tiny_pair(tmp_path / "sees")
    with pytest.raises(ModelError, match="holds no text model"):
        memory_need(next((tmp_path / "sees").glob("mmproj*")), vision=False)
    path.write_bytes(b"GGUF")
    with pytest.raises(FileError):
        memory_need(path)
