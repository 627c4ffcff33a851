"""Places in memory for models: who is loaded next, who goes for it, and who stays because somebody is inside.

Models are loaded one after another, in the order in which they were first asked for. Where no place is free the one
goes that was used least recently of those with nobody inside; where somebody is inside all of them, that one takes
nobody new until it is empty.

Thread: the event loop's.
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

from opsin.errors import OpsinError, OutOfMemoryError
from opsin.serve.errors import unexpected

_FAILED_SECONDS: Final = 30.0


class Occupant(Protocol):
    """A model that may be in memory.

    Attributes:
        idle: whether nobody is inside.
    """

    @property
    def name(self) -> str: ...

    @property
    def loaded(self) -> bool: ...

    @property
    def idle(self) -> bool: ...

    async def need(self) -> int:
        """Bytes that it will take, found before any is taken; raises what is known to be wrong with it."""
        ...

    async def load(self) -> None: ...

    async def unload(self) -> None:
        """From the call on it is not `loaded`."""
        ...


class Places:
    """Places in memory.

    Args:
        most: models at once.
        free: bytes that there are now for another one, after what those that are loaded need; None does not count.
        idle_seconds: how long one stays with nobody inside; 0 for ever.
    """

    def __init__(
        self, most: int = 1, *, free: Callable[[int], int] | None = None, idle_seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._most, self._free, self._idle_seconds, self._clock = most, free, idle_seconds, clock
        self._taken: dict[Occupant, int] = {}  # with what each needs; the least recently used first
        self._inside: dict[Occupant, int] = {}
        self._wanted: dict[Occupant, list[asyncio.Future[None]]] = {}
        self._dropping: set[Occupant] = set()  # closed to those who are not inside, and
        self._going: Occupant | None = None  # the one that is so because another waits for its place
        self._left: dict[Occupant, float] = {}
        self._changed = asyncio.Event()
        self._moving = asyncio.Lock()
        self._work: asyncio.Task[None] | None = None
        self._loading: Occupant | None = None
        self._failed: dict[Occupant, tuple[OpsinError, float]] = {}
        self._timers: dict[Occupant, asyncio.TimerHandle] = {}
        self._resting: asyncio.Task[None] | None = None

    def is_loading(self, model: Occupant) -> bool:
        """Whether somebody waits for it."""
        return model in self._wanted

    def try_enter(self, model: Occupant) -> bool:
        """Come in where that takes no waiting."""
        if not model.loaded or self._is_closed(model):
            return False
        self._come_in(model)
        return True

    async def enter(self, model: Occupant, gone: asyncio.Future[None] | None = None) -> bool:
        """Come in, when it is there; `leave` it again. Raises what loading it raises.

        False where `gone` was done before: the client waits no longer.
        """
        if self.try_enter(model):
            return True
        failure = self.failure(model)
        if failure is not None:
            raise copy.copy(failure)
        coming: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wanted.setdefault(model, []).append(coming)
        if self._work is None or self._work.done():
            self._work = asyncio.ensure_future(self._serve())
        try:
            await asyncio.wait({coming} if gone is None else {coming, gone}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            if coming.done() and coming.exception() is None:
                self.leave(model)  # it came, and found nobody
            raise
        finally:
            if not coming.done():
                coming.cancel()
                self._changed.set()
        if coming.cancelled():
            return False
        coming.result()
        return True

    def failure(self, model: Occupant) -> OpsinError | None:
        """Why it could not be loaded a short while ago: until then nobody tries again."""
        error, at = self._failed.get(model, (None, 0.0))
        return error if self._clock() < at + _FAILED_SECONDS else None

    def forget_failure(self, model: Occupant) -> None:
        """Let it be tried again at once."""
        self._failed.pop(model, None)

    def leave(self, model: Occupant) -> None:
        """Go out. Whoever is the last begins its idle time."""
        self._inside[model] -= 1
        self._use(model)
        self.notice(model)

    def notice(self, model: Occupant) -> None:
        """Something ended in a model: perhaps it is idle now."""
        self._changed.set()
        if self._is_idle(model) and model.loaded:
            self._left[model] = self._clock()
            if self._idle_seconds and model not in self._timers:
                self._wait(model, self._idle_seconds)

    async def drop(self, model: Occupant) -> None:
        """Take it out of memory when nobody is inside any more; nobody new comes in until then."""
        self._dropping.add(model)
        try:
            while model.loaded or model is self._loading:
                if model.loaded and self._is_idle(model):
                    await self._unload(model)
                else:
                    await self._change()
        finally:
            self._dropping.discard(model)
            self._changed.set()

    async def close(self) -> None:
        """Load nothing more."""
        for timer in self._timers.values():
            timer.cancel()
        if self._work is not None:
            self._work.cancel()
            with suppress(asyncio.CancelledError):
                await self._work

    def _is_idle(self, model: Occupant) -> bool:
        return not self._inside.get(model, 0) and model.idle

    def _is_closed(self, model: Occupant) -> bool:
        return model in self._dropping or model is self._going

    def _come_in(self, model: Occupant) -> None:
        self._inside[model] = self._inside.get(model, 0) + 1
        self._use(model)

    def _use(self, model: Occupant) -> None:
        if model in self._taken:
            self._taken[model] = self._taken.pop(model)  # the last one now

    async def _serve(self) -> None:
        while self._wanted:
            model = next(iter(self._wanted))
            try:
                await self._bring(model)
            except Exception as error:  # noqa: BLE001 - whoever waits hears of it
                self._refuse(model, error)
            else:
                self._admit(model)

    def _waiting(self, model: Occupant) -> list[asyncio.Future[None]]:
        return [coming for coming in self._wanted.get(model, ()) if not coming.done()]

    async def _bring(self, model: Occupant) -> None:
        """Have it in memory, unless nobody waits for it any more."""
        while self._is_closed(model) and self._waiting(model):
            await self._change()
        if model.loaded or not self._waiting(model):
            return
        need = await model.need()
        if not await self._make_room(model, need) or not self._waiting(model):
            return
        async with self._moving:
            self._loading = model
            try:
                await model.load()
            finally:
                self._loading = None
                self._changed.set()
            self._taken[model] = need
            self._failed.pop(model, None)

    async def _make_room(self, model: Occupant, need: int) -> bool:
        """Whether there is a place for it; not, where nobody waits for it any more. Raises OutOfMemoryError."""
        try:
            while self._waiting(model):
                if self._fits(need):
                    return True
                if not self._taken:
                    raise self._too_large(model, need)
                others = [other for other in self._taken if other.loaded]  # the rest is on its way out
                idle = next((other for other in others if self._is_idle(other)), None)
                if idle is not None:
                    await self._unload(idle)
                    continue
                if others:
                    self._going = self._going or others[0]
                await self._change()
            return False
        finally:
            self._going = None
            self._changed.set()

    def _too_large(self, model: Occupant, need: int) -> OutOfMemoryError:
        have = max(0, self._free(0)) if self._free is not None else 0
        return OutOfMemoryError(
            f"{model.name} needs {need / 1e6:.0f} MB, and there are {have / 1e6:.0f} MB",
            hint="load it with a smaller context, or give --models-memory more",
        )

    def _fits(self, need: int) -> bool:
        if len(self._taken) >= self._most:
            return False
        return self._free is None or need <= self._free(sum(self._taken.values()))

    async def _unload(self, model: Occupant) -> None:
        async with self._moving:
            if not model.loaded or not self._is_idle(model):
                return
            timer = self._timers.pop(model, None)
            if timer is not None:
                timer.cancel()
            try:
                await model.unload()
            finally:
                self._taken.pop(model, None)
                self._changed.set()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _admit(self, model: Occupant) -> None:
        """Let all in who waited; the others, of one that nobody waited for, are gone already."""
        for coming in self._wanted.pop(model):
            if not coming.done():
                self._come_in(model)
                coming.set_result(None)
        self.notice(model)  # nobody may have waited to the end

    def _refuse(self, model: Occupant, error: Exception) -> None:
        if not isinstance(error, OutOfMemoryError):
            self._failed[model] = _again(error), self._clock()
        for coming in self._wanted.pop(model):
            if not coming.done():
                coming.set_exception(error)
                error = _again(error)

    def _wait(self, model: Occupant, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._timers[model] = loop.call_later(seconds, self._look, model)

    def _look(self, model: Occupant) -> None:
        """Whether it was idle long enough."""
        del self._timers[model]
        if not model.loaded or not self._is_idle(model):
            return  # whoever leaves it last begins the time anew
        left = self._left[model] + self._idle_seconds - self._clock()
        if left > 0:
            self._wait(model, left)
        else:
            self._resting = asyncio.ensure_future(self._unload(model))


def _again(error: Exception) -> OpsinError:
    """The same for another, without the frames that it came through."""
    return copy.copy(error) if isinstance(error, OpsinError) else unexpected(error)
