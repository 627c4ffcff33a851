"""What the rooms' tests share: one device, and tiny models that are made once."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import one_thread  # noqa: F401 - before NumPy
import passes
import pytest
from llama_sources import fetch_sources
from real_model import fetch
from tiny import MIXED, tiny_llama

os.environ.setdefault("OPSIN_WEIGHTS", "off")  # each edit of a kernel would keep real models' weights once more
LONG = 900  # seconds: who asks for more time than this is long

# The same examples each time, and as long as each takes: what fails here fails again, also on a busy machine.
hypothesis.settings.register_profile(
    "opsin", derandomize=True, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("opsin")


def pytest_addoption(parser: pytest.Parser) -> None:
    passes.add_option(parser)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What may take longest begins first: another worker has the rest meanwhile."""
    passes.select(config.getoption("half"), items)
    items.sort(key=lambda item: not any(mark.args[0] > LONG for mark in item.iter_markers("timeout")))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What thousands of tests are made of stays until the end: no collection of garbage looks through it again.

    Each took 0.4 seconds for it, and models, servers and renderings are what Python collects after.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def interrupts() -> None:
    """Processes that tests start hear Ctrl-C, also where a shell started the tests in its background and ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def device() -> Iterator[object]:
    """A team of two threads."""
    from opsin.config import from_environment
    from opsin.ops.cpu import Cpu

    made = Cpu(from_environment(), threads=2)
    yield made
    made.close()


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Paths of tiny llamas by their shape, each written once."""
    folder, known = tmp_path_factory.mktemp("tiny"), {}

    def find(**shape: object) -> Path:
        key = repr(sorted(shape.items()))
        if key not in known:
            known[key] = tiny_llama(folder / f"{len(known)}.gguf", **shape)
        return known[key]

    return find


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The real model's file. Tests that ask for it are marked `model`."""
    return fetch()


@pytest.fixture(scope="session")
def sources() -> Path:
    """The folder `models` of llama.cpp's sources."""
    found = fetch_sources()
    if isinstance(found, str):
        pytest.skip(found)
    return found


@pytest.fixture(scope="session")
def quantised_file(tiny_file: Callable[..., Path]) -> Path:
    """A tiny llama of Q4_0, Q8_0 and F16 tensors."""
    return tiny_file(types=MIXED)
