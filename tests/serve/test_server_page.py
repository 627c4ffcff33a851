"""docs/server.md names every address that there is, and none that there is not."""

from __future__ import annotations

import re
from pathlib import Path

from starlette.routing import Route

from opsin.serve.app import build_app
from opsin.serve.options import Options
from opsin.serve.registry import ModelRegistry, ModelSource
from opsin.serve.service import Service
from opsin.serve.several import Forwarding, build_several

PAGE = (Path(__file__).parents[2] / "docs" / "server.md").read_text(encoding="utf-8")


def test_the_page_names_every_address():
    def never():
        raise AssertionError

    service = Service(Options(), never)
    registry = ModelRegistry(Options(), lambda: [ModelSource("a", Options(), "", None, never, never)], most=1)
    routes = [*build_app(service).routes, *build_several(registry).routes]
    service.shut()
    ours = [route for route in routes if isinstance(route, Route) and not isinstance(route.endpoint, Forwarding)]
    bare = {re.sub(r"^/v1(?=/)", "", route.path) for route in ours}
    table = PAGE[: PAGE.index("The addresses of chats")]
    named = {
        address for row in table.splitlines() if row[:2] == "| " for address in re.findall(r"(/[\w/.-]*)`", row[:80])
    }
    for word, parameter in (("NAME", "{name:path}"), ("ID", "{id}"), ("FILE", "{file:path}"), ("PLACE", "{id:int}")):
        named = {address.replace(word, parameter) for address in named}
    named = {re.sub(r"^/v1(?=/)", "", address) for address in named}
    assert named == bare
