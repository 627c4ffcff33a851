"""What a front makes of Ray's errors: no cluster is needed to raise them."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncIterator
from typing import Any

import pytest

from opsin.errors import BusyError
from opsin.serve.errors import HttpError
from opsin.serve.front import LostError
from opsin.serve.options import Options
from opsin.serve.replica import Relayed

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs pip install 'opsin[ray]'"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of Ray's own code, as it is imported
]
ASKED = Relayed("POST", "/v1/chat/completions", b"", (), None, "one")


class Parts:
    """A handle whose answer is two parts, and then an error."""

    def __init__(self, error: BaseException | None) -> None:
        self.error, self.cancelled, self.options_given = error, False, dict[str, object]()

    def options(self, **given: object) -> Parts:
        self.options_given = given
        return self

    @property
    def ask(self) -> Parts:
        return self

    def remote(self, *_: object) -> Parts:
        return self

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"
        if self.error is not None:
            raise self.error

    def cancel(self) -> None:
        self.cancelled = True


def heard(parts: Parts, most: int = 9) -> list[Any]:
    """What a front hears of it, so many parts of it, and the error at its end."""
    from opsin.serve.ray import Front

    async def whole() -> list[Any]:
        found: list[Any] = []
        asking = Front(Options(), parts, {})._ask(ASKED, b"", "a key", "ant")
        try:
            async for part in asking:
                found.append(part)
                if len(found) == most:
                    break
        except Exception as error:  # noqa: BLE001 - they are what is looked at
            found.append(error)
        await asking.aclose()
        return found

    return asyncio.run(whole())


def errors() -> dict[str, tuple[BaseException, type[Exception]]]:
    from grpc import StatusCode
    from grpc.aio import AioRpcError, Metadata
    from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError
    from ray.serve._private.common import DeploymentID
    from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError

    return {
        "killed": (ActorDiedError(), LostError), "unreachable": (ActorUnavailableError("gone", None), LostError),
        "no replica takes it": (ReplicaUnavailableError("a"), LostError),
        "its connection broke": (AioRpcError(StatusCode.INTERNAL, Metadata(), Metadata()), LostError),
        "full": (BackPressureError(num_queued_requests=1, max_queued_requests=1), HttpError),
        "none": (DeploymentUnavailableError(DeploymentID("Replica")), BusyError),
        "our fault": (RayTaskError("ask", "trace", ValueError("x")), RayTaskError),
    }  # fmt: skip


@pytest.mark.parametrize(
    "what", ["killed", "unreachable", "no replica takes it", "its connection broke", "full", "none", "our fault"]
)
def test_what_is_lost_may_be_asked_again_and_faults_may_not(what: str) -> None:
    error, expected = errors()[what]
    parts = Parts(error)
    *said, last = heard(parts)
    assert said == [b"one", b"two"] and isinstance(last, expected) and not parts.cancelled
    assert parts.options_given == {"stream": True, "session_id": "a key", "multiplexed_model_id": "ant"}


def test_who_leaves_early_ends_the_work_and_who_stays_does_not() -> None:
    parts = Parts(None)
    assert heard(parts) == [b"one", b"two"] and not parts.cancelled
    assert heard(parts, most=1) == [b"one"] and parts.cancelled
