"""What of Jinja and Python templates may use, within bounds: unknown values, namespaces, dictionaries, formats."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jinja2
from jinja2.runtime import Undefined
from jinja2.sandbox import SandboxedEnvironment, SandboxedFormatter
from jinja2.utils import Namespace

from opsin.text.budget import Budget, LimitError
from opsin.text.estimates import MAX_WIDTH, written

_KEY = 500  # characters of a key that an error quotes


class Unknown(Undefined):
    """Jinja's undefined value, whose message does not write out the key that was looked for."""

    __slots__ = ()

    @property
    def _undefined_message(self) -> str:
        name = self._undefined_name
        if isinstance(name, str):
            self._undefined_name = name[:_KEY]
        elif not isinstance(name, int | float | None):
            self._undefined_name = type(name).__name__
        return super()._undefined_message


class BoundedNamespace(Namespace):
    """Jinja's namespace without a text of its own, which could grow without bound, and without hidden names."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, values = args[0], dict(*args[1:], **kwargs)
        for name in values:
            _check_name(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: object) -> None:
        _check_name(name)
        super().__setitem__(name, value)

    def __repr__(self) -> str:
        return "<namespace>"

    def clear(self) -> None:
        """Forgets all. Templates cannot call it: whatever they ask for is one of their own names."""
        self._Namespace__attrs.clear()


def _check_name(name: object) -> None:
    if not isinstance(name, str) or name.startswith("_"):
        raise jinja2.TemplateError("the chat template sets a hidden name")


class Dictionary:
    """What templates may do with `dict`. Keys are put in one by one: those that share a hash take longer and longer."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget

    def __call__(self, given: Any = (), /, **kwargs: Any) -> dict[Any, Any]:
        made: dict[Any, Any] = {}
        for key, value in given.items() if isinstance(given, dict) else given:
            self._budget.step(self._budget.measure(key).work)
            made[key] = value
        return made | kwargs

    def fromkeys(self, keys: Iterable[Any], value: object = None) -> dict[Any, Any]:
        return self((key, value) for key in keys)


class BoundedFormatter(SandboxedFormatter):
    """`str.format` in steps: each field is measured before it is written."""

    def __init__(self, environment: SandboxedEnvironment, budget: Budget, given: int) -> None:
        super().__init__(environment)
        self._budget, self._given = budget, given

    def convert_field(self, value: Any, conversion: str | None) -> Any:
        if conversion is not None:
            self._budget.expect(self._budget.measure(value).written)
        return self._budget.check(super().convert_field(value, conversion), value)

    def format_field(self, value: Any, format_spec: str) -> Any:
        digits = "".join(letter if letter.isdigit() else " " for letter in format_spec[:100]).split()
        if len(format_spec) > 100 or any(int(run[-9:]) > MAX_WIDTH or len(run) > 9 for run in digits):
            raise LimitError("the chat template formats a field that is too wide")
        self._budget.step(self._given)
        self._budget.expect(written(self._budget, value))
        return self._budget.check(super().format_field(value, format_spec), value)
