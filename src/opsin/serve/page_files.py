"""The page to try a model: its files as they stand in `page/`, and what a browser lets them do.

Its modules make nodes and never read HTML: the policy has the browser refuse whatever would, and any other host.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from opsin.serve.errors import HttpError

FOLDER: Final = "/page/"  # where its files are found, beside the page itself
_ROOT: Final = Path(__file__).parent / "page"
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".png": "image/png",
}
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src data:; "
    "connect-src 'self'; require-trusted-types-for 'script'; trusted-types 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def guarded(policy: str) -> dict[str, str]:
    """Headers of a page that may do only what `policy` lets it."""
    return {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }


class PageRoutes:
    """Routes of the page. Its files are read once; other paths lead nowhere."""

    def __init__(self) -> None:
        paths = [path for path in sorted(_ROOT.rglob("*")) if path.suffix in _TYPES]
        self._files = {path.relative_to(_ROOT).as_posix(): path.read_bytes() for path in paths}

    async def page(self, request: Request) -> Response:
        """A page to try the model."""
        return self._answer(request, "index.html")

    async def file(self, request: Request) -> Response:
        """A file of that page."""
        name = request.path_params["file"]
        if name not in self._files:
            raise HttpError(404, f"the page has no {name!r:.80}")
        return self._answer(request, name)

    def _answer(self, request: Request, name: str) -> Response:
        data = self._files[name]
        headers = {**guarded(_POLICY), "ETag": f'"{hashlib.sha256(data).hexdigest()[:32]}"'}
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        return Response(data, media_type=_TYPES[Path(name).suffix], headers=headers)
