"""One tiny model and one open server of it for the room."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from running_server import Running, running, running_sight

import opsin
from opsin.api import Model

if TYPE_CHECKING:
    import openai


@pytest.fixture(scope="session")
def text_model(quantised_file) -> Iterator[Model]:
    with opsin.load(quantised_file, threads=2, context=512, sequences=8) as made:
        yield made


@pytest.fixture(scope="session")
def server(text_model) -> Iterator[Running]:
    with running(lambda: text_model, name="tiny") as made:
        yield made


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[openai.OpenAI]:
    """openai's own, of the module's server."""
    with server.openai() as made:
        yield made


@pytest.fixture(scope="module")
def sight(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server of a model that sees."""
    with running_sight(tmp_path_factory.mktemp("sight")) as made:
        yield made


@pytest.fixture
def complaints(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What an operator would read meanwhile, tracebacks included."""
    told: list[str] = []
    handle = logging.Logger.handle

    def spy(self: logging.Logger, record: logging.LogRecord) -> None:
        told.append(logging.Formatter().format(record))
        handle(self, record)

    monkeypatch.setattr(logging.Logger, "handle", spy)
    return told
