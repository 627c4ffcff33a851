"""A Jinja environment for templates that come from strangers: what it may use is counted, and it ends in time.

`generator` makes each operation of a template a call of this environment; `estimates` says what it may take, from its
arguments, before it runs, and which methods, filters and tests there are at all; `budget` holds the limits. Whatever
walks something in Python does it in steps. Jinja's own sandbox keeps templates away from Python's insides and from
changing the values that they are given; so what is known of a container stays true. A list that a template spells out
itself it may change, and then nothing is known any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from typing import Any, NoReturn, TypeVar

import jinja2
from jinja2 import nodes
from jinja2.ext import loopcontrols
from jinja2.filters import make_attrgetter
from jinja2.runtime import Context, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner, Namespace
from markupsafe import Markup

from opsin.text.budget import MAX_SECONDS, Budget, Lazy, LimitError, check_bits
from opsin.text.estimates import (
    FILTERS,
    MAX_FIELDS,
    METHODS,
    SETTLING,
    TESTS,
    Cost,
    equality,
    format_cost,
    length,
    membership,
    number,
    size,
)  # fmt: skip
from opsin.text.generator import Bounds, Generation, Generator, check_nesting
from opsin.text.origin import Written, derived, followed, formatted, join, percent, percent_format, plain, replace
from opsin.text.template_functions import write_json, write_time
from opsin.text.values import BoundedFormatter, BoundedNamespace, Dictionary, Unknown

__all__ = ["MAX_SECONDS", "Budget", "LimitError", "RefusalError", "RenderEnvironment", "shorten"]

MAX_MESSAGE = 500  # characters of what an error quotes
_ESCAPED = 6  # characters at most that Jinja's `Markup` makes of one: `&#34;`, and one for luck
_DICTIONARY = frozenset(dir(dict))
_ATTRIBUTES: Mapping[type, frozenset[str]] = {
    LoopContext: frozenset((
        "index", "index0", "revindex", "revindex0", "first", "last", "length", "previtem", "nextitem", "cycle",
        "changed", "depth", "depth0",
    )),
    Macro: frozenset(("name", "arguments", "catch_kwargs", "catch_varargs", "caller")),
    Cycler: frozenset(("next", "reset", "current")),
    tuple: frozenset(("grouper", "list")),  # of `groupby`
}  # fmt: skip

# Filters that give back values as they were put in, or know themselves whose a text is; and those that leave it to the
# methods of texts. What others make of people's texts is people's.
_PASSING_FILTERS = frozenset(("attr", "d", "default", "first", "last", "max", "min", "format", "join", "replace"))
_METHOD_FILTERS = frozenset(["capitalize", "lower", "string", "trim", "upper"])

Value = TypeVar("Value")


class RefusalError(jinja2.TemplateError):
    """The template itself refuses the conversation: it called `raise_exception`."""


def shorten(message: str) -> str:
    """What a stranger's template says, as one line that no terminal obeys."""
    line = " ".join(message[: 4 * MAX_MESSAGE].split())
    text = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in line)
    return text if len(text) <= MAX_MESSAGE else text[:MAX_MESSAGE] + "..."


class RenderEnvironment(ImmutableSandboxedEnvironment):
    """The environment of one rendering, and of the compilation before it. Offers what `transformers` offers."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "**", "%"})
    code_generator_class = Generator

    def __init__(self, budget: Budget) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[Bounds, Generation, loopcontrols],
                         optimized=False, undefined=Unknown)  # fmt: skip
        self._budget = budget
        self.filters |= {"tojson": write_json, "join": self._join, "replace": replace, "format": percent_format}
        self.filters = {name: self._counted_filter(name, self.filters[name]) for name in FILTERS}
        tests: Mapping[str, Any] = self.tests
        self.tests = {name: self._counted_test(name, function) for name, function in tests.items()}
        dictionary = Dictionary(budget)
        self.globals = {
            "range": self.globals["range"], "cycler": Cycler, "joiner": Joiner, "namespace": BoundedNamespace,
            "dict": dictionary, "raise_exception": self._raise_exception, "strftime_now": self._write_time,
        }  # fmt: skip
        self._callable = {id(function) for function in self.globals.values()}
        self._methods = (dictionary.fromkeys,)
        self._kept: list[Any] = []
        self._own: dict[int, list[Any]] = {}  # lists that the template spelled out, by address

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        check_nesting(tree)
        return tree

    def forget(self) -> None:
        """After a rendering: what it made goes at once, and not when garbage is collected some day."""
        for kept in self._kept:
            if isinstance(kept, Macro):
                for cell in kept._func.__closure__ or ():
                    cell.cell_contents = None
            else:
                BoundedNamespace.clear(kept)
        self._kept.clear()
        self._own.clear()
        self._budget.forget()

    # Hooks that the generated code calls.

    def keep(self, value: Value) -> Value:
        """What may see itself: macros, namespaces."""
        self._budget.step()
        self._budget.make(1000)
        self._kept.append(value)
        return value

    def count_round(self) -> bool:
        """Called at the head of every loop's body, and before a loop's condition."""
        self._budget.step()
        return True

    def concatenate(self, *parts: object) -> str:
        """The operator `~`."""
        return self.concat([self.write(part) for part in parts])

    def weigh_literal(self, value: Value) -> Value:
        """Called on every list, tuple or dictionary that the template spells out."""
        self._budget.make(100 * length(value))
        if isinstance(value, list):
            self._own[id(value)] = value
        return self._budget.check(value)

    def weigh_key(self, value: Value) -> Value:
        """A key of a dictionary that the template spells out: hashing it walks it."""
        self._budget.step(self._budget.measure(value).work)
        return value

    def spread(self, value: Any) -> Any:
        """What stands behind `*` or `**` in a call."""
        value = self._budget.settle(value)
        self._budget.make(8 * length(value))
        self._budget.step(length(value) * 100)
        return value

    def write(self, value: object) -> str:
        """A value as text, as `{{ }}` and `~` write it."""
        if isinstance(value, str):
            return value
        extent = self._budget.measure(value)
        self._budget.expect(extent.written)
        self._budget.step(extent.work)
        self._budget.step(self._look_over([value]))
        return self._budget.check(derived(str(value), value))

    def compare(self, left: Any, *rest: Any) -> Any:
        """`==`, `<`, `in` and their kin; `rest` are operators and operands, as in `a < b < c`."""
        result: Any = True
        for operator, right in zip(rest[::2], rest[1::2], strict=True):
            result = self._compare(left, operator, right)
            if not result:
                break
            left = right
        return result

    def _compare(self, left: Any, operator: str, right: Any) -> Any:
        if operator in ("in", "notin"):
            right = self._budget.settle(right)
            self._budget.step(membership(self._budget, left, right))
            return (left in right) == (operator == "in")
        self._budget.step(equality(self._budget, left, right))
        return _COMPARISONS[operator](left, right)

    def slice(self, value: Any, start: Any, stop: Any, step: Any) -> Any:
        """`value[start:stop:step]`."""
        part = slice(start, stop, step)
        if isinstance(value, str | list | tuple):
            items = len(range(*part.indices(len(value))))
            self._budget.step(items)
            self._budget.make(items * (8 if not isinstance(value, str) else 1 if value.isascii() else 4))
        return value[part]

    def getattr(self, obj: Any, attribute: str) -> Any:
        """`obj.attribute`."""
        self._budget.step()
        if isinstance(obj, dict) and attribute not in _DICTIONARY:
            return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """`obj[argument]`."""
        self._budget.step(0 if isinstance(argument, int) else self._budget.measure(argument).work)
        return super().getitem(obj, argument)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Only what is listed."""
        for table in (METHODS, _ATTRIBUTES):
            if any(isinstance(obj, kind) and attr in names for kind, names in table.items()):
                return True
        if isinstance(obj, Namespace):
            return not attr.startswith("_")
        return obj is self.globals["dict"] and attr == "fromkeys"

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """`str.format` and `str.format_map`, field by field."""
        name, owner = getattr(value, "__name__", ""), getattr(value, "__self__", None)
        if name not in ("format", "format_map") or not isinstance(owner, str):
            return None

        @wraps(value)
        def written_by_field(*args: Any, **kwargs: Any) -> str:
            if owner.count("{") + owner.count("}") > 2 * MAX_FIELDS:
                raise LimitError(f"the chat template gives a format of more than {MAX_FIELDS} fields")
            if name == "format_map":
                kwargs, args = dict(*args, **kwargs), ()
            looked = self._look_over([*args, *kwargs.values()])
            return formatted(owner, args, kwargs, BoundedFormatter(self, self._budget, looked))

        return written_by_field

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Every call that a template makes."""
        owner = getattr(getattr(function, "__wrapped__", function), "__self__", None)
        name = str(getattr(function, "__name__", type(function).__name__))
        if name == "join":
            args = tuple(self._budget.settle(argument) for argument in args)
        given = [*args, *(value for key, value in kwargs.items() if key not in ("_loop_vars", "_block_vars"))]
        self._spend(self._estimate(function, owner, name, given), owner)
        if isinstance(owner, list) and name in _CHANGES:
            self._forget_extents(owner, name)
        if type(owner) is str and name in ("join", "replace"):  # what the template's own text is given may be people's
            function = getattr(followed(owner), name)
        made = super().call(context, function, *args, **kwargs)
        if isinstance(owner, str) and not (isinstance(owner, Written) or name in ("format", "format_map")):
            self._budget.step(self._look_over(given))
            made = derived(made, owner, *given)
        return self.keep(made) if isinstance(made, Namespace) else self._budget.check(made, owner, *args)

    def _forget_extents(self, changed: list[Any], name: str) -> None:
        """Before a list changes: what holds it changes too."""
        if self._own.get(id(changed)) is not changed:
            raise jinja2.TemplateError(f"the chat template calls {name} of a list that is not its own")
        self._budget.forget()

    def _look_over(self, values: Iterable[object]) -> int:
        """Nanoseconds to find out whether any of these is people's."""
        return 100 * min(10_000, sum(self._budget.measure(value).items for value in values))

    def _estimate(self, function: Any, owner: Any, name: str, given: list[Any]) -> Cost:
        """What a call may take, or a refusal: only what is known may be called."""
        for kind, methods in METHODS.items():
            if isinstance(owner, kind) and name in methods:
                return methods[name](self._budget, [owner, *given])
        if name == "safe_range":
            return Cost(sum(number("range", value) for value in given))
        known = id(function) in self._callable or function in self._methods
        if known or isinstance(function, Macro | LoopContext | Joiner) or isinstance(owner, LoopContext | Cycler):
            return Cost(sum(self._budget.measure(value).work for value in given))
        if isinstance(function, Undefined):
            return Cost()  # it says itself that it is none
        raise jinja2.TemplateError(f"the chat template calls {name}, which it may not")

    def _spend(self, cost: Cost, subject: object = None) -> None:
        self._budget.step(cost.work * _growth(subject))
        self._budget.expect(cost.needs * _growth(subject))
        self._budget.make(cost.makes)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """The operators `+ - * / // ** %`."""
        self._budget.step()
        if operator == "+" and isinstance(left, str | list | tuple) and isinstance(right, str | list | tuple):
            self._budget.expect(_bytes(left, right) * _growth(left, right))
            if isinstance(left, str) and isinstance(right, str) and Written in (type(left), type(right)):
                return self.concat((left, right))  # Markup would forget what people wrote
        elif operator == "*":
            self._check_product(left, right)
        elif operator == "**":
            self._check_power(left, right)
        elif operator == "%" and isinstance(left, str):
            values = right if isinstance(right, tuple) else (right,)
            self._spend(format_cost(self._budget, left, values), left)
            self._budget.step(self._look_over(values))
            return self._budget.check(percent(left, right))
        elif operator == "-" and not isinstance(left, int | float | Undefined):
            raise TypeError(f"{type(left).__name__} has no difference")
        result = super().call_binop(context, operator, left, right)
        if isinstance(result, list | tuple):
            self._budget.make(100 + 8 * len(result))
            return result
        return self._budget.check(result, left, right)

    def _check_product(self, left: object, right: object) -> None:
        if isinstance(left, int) and isinstance(right, int):
            check_bits(left.bit_length() + right.bit_length() - 1)
        for one, other in ((left, right), (right, left)):
            if isinstance(one, str | list | tuple) and isinstance(other, int):
                self._budget.expect((size(one) if isinstance(one, str) else 8 * len(one)) * max(other, 0))

    def _check_power(self, left: object, right: object) -> None:
        if isinstance(left, int) and isinstance(right, int):
            check_bits((left.bit_length() - 1) * max(right, 0))

    def concat(self, parts: Iterable[str]) -> str:
        """Called for macros and blocks that are kept as a value."""
        texts = list(parts)
        self._budget.expect(_bytes(*texts))
        return self._budget.check(join("", self._budget.walk(texts)), *texts[:1])

    def _join(self, values: Iterable[object], between: object = "", attribute: str | int | None = None) -> str:
        """The filter `join`."""
        taken = values if attribute is None else map(make_attrgetter(self, attribute), values)
        return join(self.write(between), map(self.write, taken))

    def _counted_filter(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        budget, estimate = self._budget, FILTERS[name]
        skip = 1 if hasattr(function, "jinja_pass_arg") else 0

        def counted(*args: Any, **kwargs: Any) -> Any:
            subject, rest = args[skip], args[skip + 1 :]
            if name in SETTLING:
                subject = budget.settle(subject)
            self._spend(estimate(budget, [subject, *rest, *kwargs.values()]), subject)
            if name in _LAZY and subject:
                subject = budget.walk(subject)
            result = function(*args[:skip], subject, *rest, **kwargs)
            if isinstance(result, str) and name not in _PASSING_FILTERS:
                given = [subject, *rest, *kwargs.values()]
                budget.step(self._look_over(given))
                is_new = name not in _METHOD_FILTERS and isinstance(result, Written)
                result = derived(plain(result) if is_new else result, *given)
            result = Lazy(result, budget) if isinstance(result, Iterator) else result
            return budget.check(result, subject, *rest)

        if skip:  # Jinja looks there for what it hands over
            vars(counted).update(vars(function))
        return counted

    def _counted_test(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        estimate = TESTS.get(name)
        if estimate is None:
            return function  # it looks at the kind of a value only
        skip = 1 if hasattr(function, "jinja_pass_arg") else 0

        def counted(*args: Any, **kwargs: Any) -> Any:
            given = [self._budget.settle(value) for value in (*args[skip:], *kwargs.values())]
            self._spend(estimate(self._budget, given))
            return function(*args[:skip], *given)

        if skip:  # Jinja looks there for what it hands over
            vars(counted).update(vars(function))
        return counted

    def _raise_exception(self, message: object = "") -> NoReturn:
        raise RefusalError(shorten(self.write(message)))

    def _write_time(self, pattern: str) -> str:
        if len(pattern) > MAX_MESSAGE:  # strftime may make 256 times as much
            raise LimitError(f"the chat template gives a date of {len(pattern)} characters")
        return write_time(pattern)


_CHANGES = frozenset(("append", "pop"))
_LAZY = frozenset(("map", "select", "reject", "selectattr", "rejectattr", "unique"))
_COMPARISONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "eq": lambda left, right: left == right, "ne": lambda left, right: left != right,
    "lt": lambda left, right: left < right, "lteq": lambda left, right: left <= right,
    "gt": lambda left, right: left > right, "gteq": lambda left, right: left >= right,
}  # fmt: skip


def _bytes(*parts: str | list[Any] | tuple[Any, ...]) -> int:
    """Bytes of texts, or of lists, behind one another."""
    wide = any(isinstance(part, str) and not part.isascii() for part in parts)
    return sum(len(part) * (1 if isinstance(part, str) else 8) for part in parts) * (4 if wide else 1)


def _growth(*values: object) -> int:
    return _ESCAPED if any(isinstance(value, Markup) for value in values) else 1
