"""Templates become Python: each operation that Jinja would write as an operator becomes a call of the environment.

Whatever a statement or expression can walk or make passes the environment's hooks, which measure it first. Statements
that a chat does not need (`include`, `extends`, `block`, `autoescape`) are refused by name. Nothing is computed here:
constants are not folded, neither by Jinja nor by Python, which sees calls where operators stood.

Compiling has its own limits, since a million characters of source take minutes. The largest published template has
2,461 tokens, 107 names and a tree 29 deep.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NoReturn

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame, MacroRef
from jinja2.ext import Extension
from jinja2.lexer import Token, TokenStream
from jinja2.parser import Parser

from opsin.text.budget import LimitError, check_bits

MAX_SOURCE = 1 << 18  # characters
MAX_TOKENS = 6_000
MAX_NAMES = 600
MAX_NAME = 100  # characters
MAX_NESTING = 60  # nodes of the tree
MAX_CODE = 1 << 19  # characters of Python


class Bounds(Extension):
    """Counts tokens and names while the parser reads them."""

    def filter_stream(self, stream: TokenStream) -> Iterator[Token]:
        names: set[str] = set()
        for count, token in enumerate(stream):
            self.environment.count_round()  # type: ignore[attr-defined]
            if token.type == "name":
                names.add(token.value)
                if len(token.value) > MAX_NAME:
                    raise LimitError(f"the chat template has a name of {len(token.value)} characters")
            if count >= MAX_TOKENS or len(names) > MAX_NAMES:
                raise LimitError(f"the chat template has more than {MAX_TOKENS} words or {MAX_NAMES} names")
            yield token


class Generation(Extension):
    """`{% generation %}` marks what an assistant wrote, for training; here it is what it encloses."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def check_nesting(tree: nodes.Template) -> None:
    """Before anything recurses into the tree."""
    level: list[nodes.Node] = [tree]
    for _ in range(MAX_NESTING):
        level = [child for node in level for child in node.iter_child_nodes()]
    if level:
        raise LimitError(f"the chat template nests deeper than {MAX_NESTING}, line {level[0].lineno}")


class Generator(CodeGenerator):
    """Writes the Python of a template. Its calls of the environment are the hooks of `RenderEnvironment`."""

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        """Any node: one step of the budget."""
        self.environment.count_round()  # type: ignore[attr-defined]
        return super().visit(node, *args, **kwargs)

    def _refuse(self, node: nodes.Node, frame: Frame) -> NoReturn:
        self.fail(f"{type(node).__name__.lower()} has no place in a chat template", node.lineno)

    visit_Extends = visit_Include = visit_Import = visit_FromImport = visit_Block = _refuse  # noqa: N815
    visit_ScopedEvalContextModifier = visit_EvalContextModifier = visit_OverlayScope = _refuse  # noqa: N815

    def _write_call(self, hook: str, arguments: Iterable[nodes.Expr | None], frame: Frame) -> None:
        self.write(f"environment.{hook}(")
        for argument in arguments:
            if argument is None:
                self.write("None")
            else:
                self.visit(argument, frame)
            self.write(", ")
        self.write(")")

    def visit_For(self, node: nodes.For, frame: Frame) -> None:  # noqa: N802  (the names are Jinja's)
        node.body.insert(0, nodes.ExprStmt(_hook("count_round"), lineno=node.lineno))
        if node.test is not None:
            node.test = nodes.And(_hook("count_round"), node.test, lineno=node.lineno)
        super().visit_For(node, frame)

    def visit_Call(self, node: nodes.Call, frame: Frame, forward_caller: bool = False) -> None:  # noqa: N802
        if isinstance(node.node, nodes.EnvironmentAttribute):
            self._write_call(node.node.name, node.args, frame)
        else:
            super().visit_Call(node, frame, forward_caller=forward_caller)

    def signature(
        self, node: nodes.Call | nodes.Filter | nodes.Test, frame: Frame, extra_kwargs: Mapping[str, Any] | None = None
    ) -> None:
        """Arguments of a call: those behind `*` and `**` are measured."""
        if node.dyn_args is not None:
            node.dyn_args = _hook("spread", node.dyn_args)
        if node.dyn_kwargs is not None:
            node.dyn_kwargs = _hook("spread", node.dyn_kwargs)
        super().signature(node, frame, extra_kwargs)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802
        self._write_call("concatenate", node.nodes, frame)

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:  # noqa: N802
        operands = [part for operand in node.ops for part in (nodes.Const(operand.op), operand.expr)]
        self._write_call("compare", [node.expr, *operands], frame)

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:  # noqa: N802
        if isinstance(node.arg, nodes.Slice):
            self._write_call("slice", [node.node, node.arg.start, node.arg.stop, node.arg.step], frame)
        else:
            super().visit_Getitem(node, frame)

    def visit_Const(self, node: nodes.Const, frame: Frame) -> None:  # noqa: N802
        if isinstance(node.value, int):
            check_bits(node.value.bit_length())
        if isinstance(node.value, float) and not math.isfinite(node.value):
            self.fail("a number is too large", node.lineno)
        super().visit_Const(node, frame)

    def visit_List(self, node: nodes.List, frame: Frame) -> None:  # noqa: N802
        self.write("environment.weigh_literal(")
        super().visit_List(node, frame)
        self.write(")")

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:  # noqa: N802
        for pair in node.items:
            pair.key = pair.key if isinstance(pair.key, nodes.Const) else _hook("weigh_key", pair.key)
        self.write("environment.weigh_literal(")
        super().visit_Dict(node, frame)
        self.write(")")

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:  # noqa: N802
        if node.ctx != "load":
            super().visit_Tuple(node, frame)
            return
        self.write("environment.weigh_literal(")
        super().visit_Tuple(node, frame)
        self.write(")")

    def macro_def(self, macro_ref: MacroRef, frame: Frame) -> None:
        """Macros see themselves, so nobody would free what they see."""
        self.write("environment.keep(")
        super().macro_def(macro_ref, frame)
        self.write(")")

    def _output_child_to_const(self, node: nodes.Expr, frame: Frame, finalize: CodeGenerator._FinalizeInfo) -> str:
        """Only what is text already: all else would run while the template is compiled."""
        if isinstance(node, nodes.TemplateData) or (isinstance(node, nodes.Const) and isinstance(node.value, str)):
            return super()._output_child_to_const(node, frame, finalize)
        raise nodes.Impossible

    def _output_child_pre(self, node: nodes.Expr, frame: Frame, finalize: CodeGenerator._FinalizeInfo) -> None:
        self.write("environment.write(")


def _hook(method: str, *arguments: nodes.Expr) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(method), list(arguments), [], None, None)
