"""Whether the server lives, and whether it is ready: two questions with two answers.

A process that does not live is started anew; one that is not ready gets no requests for a while.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from opsin.serve.service import Service


class HealthRoutes:
    """For probes and balancers; answered without a key and under any name."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def health(self, request: Request) -> Response:
        """Whether the model is there, or sleeps; 503 while it is being loaded, as llama-server answers."""
        _ = self._service.card  # 503 while it loads
        return JSONResponse({"status": "ok"})

    async def live(self, request: Request) -> Response:
        """Whether the process can go on, also while it loads; 503 when its engine has died."""
        return told({"engine": self._service.engine_lives})

    async def ready(self, request: Request) -> Response:
        """Whether it takes requests now; with `?verbose` each check, and what is held while nobody is inside."""
        service = self._service
        checks = {"model": service.ready, "engine": service.engine_lives, "open": not service.state.ending}
        if "verbose" not in request.query_params:
            return told(checks)
        return told(checks, checks=checks, leaked=service.check_leaks())


def told(passed: dict[str, bool], **more: object) -> Response:
    """Checks as a response: 503 where one failed."""
    failed = [name for name, well in passed.items() if not well]
    status = {"status": f"not {', '.join(failed)}" if failed else "ok"}
    return JSONResponse({**status, **more}, 503 if failed else 200)
