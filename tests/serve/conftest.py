"""One tiny model and one open server of it for the room."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from running_server import Running, running

import opsin
from opsin.api import Model


@pytest.fixture(scope="session")
def text_model(quantised_file) -> Iterator[Model]:
    with opsin.load(quantised_file, threads=2, context=512, sequences=8) as made:
        yield made


@pytest.fixture(scope="session")
def server(text_model) -> Iterator[Running]:
    with running(lambda: text_model, name="tiny") as made:
        yield made
