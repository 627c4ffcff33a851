"""A Jinja environment for templates that come from strangers: what it may use is counted, and it ends in time.

Every loop round, call and filter spends from the budget of the one rendering, and so does every string and container
that it makes. Whatever multiplies (`*`, `**`, joining, replacing, formatting) is measured before it runs, because
afterwards is too late. Jinja's own sandbox keeps templates away from Python's insides and from changing the values
that they are given; so a container's weight, once known, stays.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from functools import wraps
from typing import Any, Final, NoReturn, TypeVar

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import make_attrgetter
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from opsin.text.origin import Written, derived, formatted, join, percent, percent_format, plain, replace
from opsin.text.template_functions import write_json, write_time

MAX_SECONDS: Final = 1.0
MAX_WEIGHT: Final = 1 << 25  # characters of one string, or items and characters of one container
MAX_TOTAL: Final = 1 << 28  # of everything that one rendering makes
MAX_STEPS: Final = 1 << 21
MAX_NUMBER: Final = 100_000  # widths, counts and the like that a filter or method is given
MAX_BITS: Final = 1 << 12
_REMOVED_FILTERS: Final = ("wordwrap", "xmlattr", "urlize", "pprint", "center", "slice", "batch", "striptags",
                            "sum", "filesizeformat", "random")  # fmt: skip
# Filters that give back values as they were put in, or know themselves whose a text is; and those that leave it to the
# methods of texts. What others make of people's texts is people's.
_PASSING_FILTERS: Final = frozenset(
    {"attr", "d", "default", "first", "last", "max", "min", "format", "join", "replace"}
)  # fmt: skip
_METHOD_FILTERS: Final = frozenset({"capitalize", "lower", "string", "trim", "upper"})
_WIDE_FORMAT: Final = re.compile(r"%[^a-zA-Z%]*(?:\d{4}|\*)|\{[^}]*\d{4}")

Value = TypeVar("Value")


class LimitError(jinja2.TemplateError):
    """A template asked for more than a chat needs."""


class RefusalError(jinja2.TemplateError):
    """The template itself refuses the conversation: it called `raise_exception`."""


class Budget:
    """What one rendering may still use."""

    def __init__(self, seconds: float = MAX_SECONDS) -> None:
        self._seconds = seconds
        self._began: float | None = None  # processor time of this thread, so that a busy machine changes nothing
        self._steps = MAX_STEPS
        self._total = MAX_TOTAL
        self._weights: dict[int, tuple[object, int]] = {}  # by address; the value is kept so that it stays there

    def step(self) -> None:
        """One round of a loop, one call, one filter."""
        self._steps -= 1
        if self._steps < 0:
            raise LimitError(f"the chat template takes more than {MAX_STEPS} steps")
        now = time.thread_time()
        if self._began is None:
            self._began = now
        if now - self._began > self._seconds:
            raise LimitError("the chat template takes too long")

    def make(self, size: int) -> None:
        """Something of this size is about to be made, or was: a string in characters, a container in items."""
        self._total -= size
        if size > MAX_WEIGHT or self._total < 0:
            raise LimitError("the chat template makes too much text")

    def weigh(self, value: object) -> int:
        """How large a value is when written out: shared parts count as often as they occur."""
        if isinstance(value, str):
            return len(value)
        if not isinstance(value, list | tuple | dict):
            return 1
        known = self._weights.get(id(value))
        if known is not None:
            return known[1]
        self.make(len(value))
        parts: Iterable[object] = value
        if isinstance(value, dict):
            parts = [*value.keys(), *value.values()]
        weight = 1 + len(value) + sum(map(self.weigh, parts))
        if weight > MAX_WEIGHT:
            raise LimitError("the chat template makes too much text")
        self._weights[id(value)] = (value, weight)
        return weight

    def check(self, value: Value) -> Value:
        """The value itself, if it is not too large."""
        if isinstance(value, str):
            self.make(len(value))
        else:
            self.weigh(value)
        return value

    def check_call(self, name: str, arguments: Sequence[object]) -> None:
        """Before a method or filter runs: what it could make of its arguments. The first one is what it works on."""
        self.step()
        for argument in arguments[1:]:
            if isinstance(argument, int | float) and abs(argument) > MAX_NUMBER:
                raise LimitError(f"the chat template gives {name} the number {argument}")
        estimate = _ESTIMATES.get(name)
        if estimate is not None:
            size = estimate([self._measure(argument) for argument in arguments])
            if size > MAX_WEIGHT:
                raise LimitError(f"the chat template makes too much text with {name}")

    def _measure(self, argument: object) -> _Measure:
        text = argument if isinstance(argument, str) else ""
        number = argument if isinstance(argument, int) else 0
        items = len(argument) if isinstance(argument, Sized) else 0
        return _Measure(text, number, items, max(items, self.weigh(argument)))


@dataclass(frozen=True)
class _Measure:
    """What matters of an argument. `weight` is that of the whole, `items` its length."""

    text: str
    number: int
    items: int
    weight: int


def _estimate_replace(arguments: Sequence[_Measure]) -> int:
    if len(arguments) < 3:
        return 0
    subject, old, new = arguments[:3]
    return subject.weight + (subject.text.count(old.text) if old.text else subject.items + 1) * new.weight


def _estimate_join(arguments: Sequence[_Measure]) -> int:
    """Both `sequence|join(separator)` and `separator.join(sequence)`: the smaller product is the right way round."""
    if len(arguments) < 2:
        return arguments[0].weight
    one, other = arguments[:2]
    return one.weight + other.weight + min(one.items * other.weight, other.items * one.weight)


def _estimate_indent(arguments: Sequence[_Measure]) -> int:
    width = max((argument.number or argument.weight for argument in arguments[1:]), default=8)
    subject = arguments[0]
    return subject.weight + (subject.text.count("\n") + subject.text.count("\t") + 1) * max(width, 8)


def _estimate_format(arguments: Sequence[_Measure]) -> int:
    pattern = arguments[0]
    if _WIDE_FORMAT.search(pattern.text):
        return MAX_WEIGHT + 1
    fields = pattern.text.count("%") + pattern.text.count("{")
    return pattern.weight + fields * (1000 + max((argument.weight for argument in arguments[1:]), default=0))


_ESTIMATES: Final[Mapping[str, Callable[[Sequence[_Measure]], int]]] = {
    "replace": _estimate_replace,
    "translate": lambda arguments: arguments[0].weight * max(argument.weight for argument in arguments),
    "join": _estimate_join,
    "indent": _estimate_indent,
    "expandtabs": _estimate_indent,
    "tojson": lambda arguments: arguments[0].weight * (2 + max((a.number for a in arguments[1:]), default=0)),
    "format": _estimate_format,
    "format_map": _estimate_format,
}


class _Generation(Extension):
    """`{% generation %}` marks what an assistant wrote, for training; here it is what it encloses."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Counted(NodeTransformer):
    """Rewrites a template so that it calls the environment where Jinja has no hook."""

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802  (the name is Jinja's)
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_call("count_round", []), lineno=node.lineno))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _call("concatenate", node.nodes)

    def _visit_container(self, node: nodes.Expr) -> nodes.Node:
        self.generic_visit(node)
        if getattr(node, "ctx", "load") != "load":
            return node
        return _call("weigh_literal", [node])

    visit_List = visit_Dict = visit_Tuple = _visit_container  # noqa: N815


def _call(method: str, arguments: list[nodes.Expr]) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(method), arguments, [], None, None)


class _Namespace(Namespace):
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


def _check_name(name: object) -> None:
    if str(name).startswith("_"):
        raise jinja2.TemplateError(f"the chat template sets the hidden name {name!r}")


class _Dictionary:
    """What templates may do with `dict`."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, keys: Iterable[Any], value: object = None) -> dict[Any, Any]:
        return dict.fromkeys(keys, value)


class RenderEnvironment(ImmutableSandboxedEnvironment):
    """The environment of one rendering, and of the compilation before it. Offers what `transformers` offers."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, budget: Budget) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols], optimized=False,
            finalize=self._write,
        )  # fmt: skip
        self._budget = budget
        for name in _REMOVED_FILTERS:
            del self.filters[name]
        self.filters |= {"tojson": write_json, "join": self._join, "replace": replace, "format": percent_format}
        self.filters = {name: self._counted_filter(name, function) for name, function in self.filters.items()}
        del self.globals["lipsum"]
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = write_time
        self.globals["dict"] = _Dictionary()
        self.globals["namespace"] = _Namespace

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        _Counted().visit(tree)
        return tree

    def count_round(self) -> None:
        """Called at the head of every loop's body."""
        self._budget.step()

    def concatenate(self, *parts: object) -> str:
        """The operator `~`."""
        return self.concat(map(self._write, parts))

    def weigh_literal(self, value: Value) -> Value:
        """Called on every list, tuple or dictionary that the template spells out."""
        return self._budget.check(value)

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Every call that a template makes."""
        owner = getattr(getattr(function, "__wrapped__", function), "__self__", None)
        if owner is self:
            return function(*args)
        name = str(getattr(function, "__name__", ""))
        if name == "join":
            args = tuple(_settle(argument) for argument in args)
        given = [*args, *(value for key, value in kwargs.items() if key not in ("_loop_vars", "_block_vars"))]
        self._budget.check_call(name, [owner, *given])
        if type(owner) is str and name in ("join", "replace"):  # what the template's own text is given may be people's
            owner = Written(owner, ())
            function = getattr(owner, name)
        made = super().call(context, function, *args, **kwargs)
        if isinstance(owner, str | bytes) and not (isinstance(owner, Written) or name in ("format", "format_map")):
            made = derived(made, owner, *given)
        return self._budget.check(made)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """What stands for the methods `format` and `format_map` of texts."""
        if super().wrap_str_format(value) is None:
            return None
        pattern: str = value.__self__
        formatter = SandboxedFormatter(self)

        @wraps(value)
        def format(*args: Any, **kwargs: Any) -> str:
            if value.__name__ == "format_map":
                args, kwargs = (), dict(*args, **kwargs)
            return formatted(pattern, args, kwargs, formatter)

        return format

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """The operators that can multiply."""
        self._budget.step()
        if operator == "*":
            self._check_product(left, right)
        elif operator == "**":
            self._check_power(left, right)
        elif operator == "%" and isinstance(left, str):
            values = right if isinstance(right, tuple) else (right,)
            self._budget.check_call("format", [left, *values])
            return self._budget.check(percent(left, right))
        elif isinstance(left, str | list | tuple) and isinstance(right, str | list | tuple):
            self._budget.make(len(left) + len(right))
            if isinstance(left, str) and isinstance(right, str):
                return self._budget.check(_joined(left, right))
        return self._budget.check(super().call_binop(context, operator, left, right))

    def _check_product(self, left: object, right: object) -> None:
        if isinstance(left, int) and isinstance(right, int):
            _check_bits(left.bit_length() + right.bit_length())
        for one, other in ((left, right), (right, left)):
            if isinstance(one, str | list | tuple) and isinstance(other, int):
                self._budget.make(self._budget.weigh(one) * max(other, 0))

    def _check_power(self, left: object, right: object) -> None:
        if isinstance(left, int) and isinstance(right, int):
            _check_bits(left.bit_length() * max(right, 0))

    def concat(self, parts: Iterable[str]) -> str:
        """Called for macros and blocks that are kept as a value."""
        texts = list(parts)
        self._budget.make(sum(map(len, texts)))
        return join("", texts)

    def _write(self, value: object) -> str:
        """A value as it stands in the text. One that is no text may hold what people wrote."""
        self._budget.check(value)
        return value if isinstance(value, str) else derived(str(value), value)

    def _join(self, values: Iterable[object], between: object = "", attribute: str | int | None = None) -> str:
        """The filter `join`."""
        taken = values if attribute is None else map(make_attrgetter(self, attribute), values)
        return join(self._write(between), map(self._write, taken))

    def _counted_filter(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        budget = self._budget
        skip = 1 if hasattr(function, "jinja_pass_arg") else 0

        @wraps(function)
        def counted(*args: Any, **kwargs: Any) -> Any:
            if name == "join":
                args = tuple(_settle(argument) for argument in args)
            given = [*args[skip:], *kwargs.values()]
            budget.check_call(name, given)
            made = function(*args, **kwargs)
            if isinstance(made, str) and name not in _PASSING_FILTERS:
                is_new = name not in _METHOD_FILTERS and isinstance(made, Written)
                made = derived(plain(made) if is_new else made, *given)
            return budget.check(made)

        return counted


def _joined(left: str, right: str) -> str:
    """The operator `+`. Markup would forget what people wrote."""
    return join("", (left, right)) if isinstance(left, Written) or isinstance(right, Written) else left + right


def _settle(value: object) -> object:
    """A lazy sequence as a list, so that its length is known."""
    return list(value) if isinstance(value, Iterator) else value


def _check_bits(bits: int) -> None:
    if bits > MAX_BITS:
        raise LimitError("the chat template makes too large a number")


def _raise_exception(message: str) -> NoReturn:
    raise RefusalError(message)
