"""A server whose model cannot be loaded ends, whatever went wrong."""

from __future__ import annotations

import asyncio

import pytest
from tiny_sight import tiny_tower

import opsin
from opsin.errors import ModelError
from opsin.serve.options import Options
from opsin.serve.server import listen, serve
from opsin.serve.service import Service


@pytest.mark.parametrize("error", [KeyError("x"), MemoryError(), ModelError("x"), RuntimeError("x"), AssertionError()])
def test_any_failure_of_loading_ends_the_server_and_is_told(error):
    def load():
        raise error

    options = Options(port=0)
    with pytest.raises(type(error)):
        asyncio.run(serve(listen(options), Service(options, load)))


def test_a_model_that_cannot_write_never_becomes_healthy(tmp_path):
    tower, options = tiny_tower(tmp_path / "mmproj.gguf"), Options(port=0)
    service = Service(options, lambda: opsin.load(tower, threads=1))
    with pytest.raises(ModelError, match="holds no text model"):
        asyncio.run(serve(listen(options), service))
    assert not service.ready
