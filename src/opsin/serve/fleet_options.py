"""How many replicas of a model there are, and how much each takes on. Nothing here needs Ray."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from opsin.errors import RequestError


@dataclass(frozen=True)
class FleetOptions:
    """How many of what.

    Attributes:
        replicas: with a model. most: with autoscaling up to so many; 0 for none.
        fronts: without one.
        cpus: processors that Ray counts for a replica.
        apart: whether no machine gets a second replica.
        ongoing: requests that a replica has at once. queued: those that a front lets wait beyond; more get 503.
        rows: of prompts that may wait a replica, before autoscaling wants another one.
    """

    replicas: int = 1
    most: int = 0
    fronts: int = 1
    cpus: int = 1
    apart: bool = False
    ongoing: int = 16
    queued: int = 64
    rows: int = 4096

    def __post_init__(self) -> None:
        if min(self.replicas, self.fronts, self.cpus, self.ongoing, self.queued, self.rows) < 1:
            raise RequestError(f"{self}", hint="numbers are from 1 on")
        if 0 < self.most < self.replicas:
            raise RequestError(f"at most {self.most} of {self.replicas} replicas", hint="give most=0 or more")

    def wanted(self, rows_waiting: float, requests: float) -> int:
        """Replicas that hold what waits and runs, in rows of prompts and in requests; Ray keeps to its bounds."""
        return math.ceil(max(rows_waiting / self.rows, requests / self.ongoing))

    @classmethod
    def read(cls, settings: Mapping[str, object]) -> FleetOptions:
        """Of the settings that have its fields' names. Raises RequestError for what is no number."""
        given: dict[str, Any] = {}
        for field in fields(cls):
            if field.name in settings:
                text = str(settings[field.name])
                if not (text.isascii() and text.isdigit()):
                    raise RequestError(f"the setting {field.name} is {text!r:.80}", hint="give a number from 0 on")
                given[field.name] = bool(int(text)) if field.name == "apart" else int(text)
        return cls(**given)
