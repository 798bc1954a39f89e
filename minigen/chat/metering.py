"""Makes a chat template pay for what Jinja does without a call: see `sandbox`.

Importing this imports Jinja.
"""

# ruff: noqa: N802  (the visitor finds its methods by the names of the nodes)
from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import LoopContext, str_join
from jinja2.visitor import NodeTransformer

from minigen.chat.budget import size_of
from minigen.chat.prices import budget, compared

SMALL = 256  # characters or bits of a value that is compared for free
FUNCTION = 50  # price of the definition of a macro, in nodes
# Filters of our own. Their names are not valid in a template, and would be of no use to it.
PAY, LOOK, SLICE, CONCAT = " pay", " look", " slice", " concat"


class Metering(NodeTransformer):
    """Adds payments to a template's syntax tree.

    Each list of statements pays for its nodes where it begins; comparisons, slices and
    concatenations pay for the values that they read.
    """

    LISTS = ("body", "else_")

    def generic_visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> nodes.Node:
        costs: dict[str, int] = {}
        for name in self.LISTS:
            statements = getattr(node, name, None)
            if isinstance(statements, list):
                costs[name] = self.cost(statements)
        super().generic_visit(node, *args, **kwargs)
        for name, cost in costs.items():
            statements = getattr(node, name)
            if statements or name == "body":  # an empty loop takes time too
                paying = nodes.ExprStmt(own_filter(PAY, nodes.Const(cost)), lineno=node.lineno)
                statements.insert(0, paying)
        return node

    def visit_For(self, node: nodes.For) -> nodes.Node:
        if node.test is not None:  # it is evaluated for skipped items too
            cost = self.cost([node.test])
            self.generic_visit(node)
            node.test = nodes.And(own_filter(PAY, nodes.Const(cost)), node.test, lineno=node.lineno)
            return node
        return self.generic_visit(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return own_filter(CONCAT, nodes.Tuple(node.nodes, "load", lineno=node.lineno))

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        node.expr = looking(node.expr)
        for operand in node.ops:
            operand.expr = looking(operand.expr)
        return node

    def visit_Pair(self, node: nodes.Pair) -> nodes.Node:
        self.generic_visit(node)
        node.key = looking(node.key)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        if not isinstance(node.arg, nodes.Slice):
            return node
        none = nodes.Const(None)
        start, stop, step = node.arg.start, node.arg.stop, node.arg.step
        return own_filter(SLICE, node.node, start or none, stop or none, step or none)

    def cost(self, statements: Iterable[nodes.Node]) -> int:
        """The steps of some statements: their nodes and the text that they write.

        Statements in lists of their own, such as the body of a loop, are not included.
        """
        cost = 1
        pending = list(statements)
        while pending:
            node = pending.pop()
            cost += FUNCTION if isinstance(node, nodes.Macro | nodes.CallBlock) else 1
            if isinstance(node, nodes.TemplateData):
                cost += len(node.data) >> 5
            pending += node.iter_child_nodes(exclude=self.LISTS)
        return cost


def own_filter(name: str, value: nodes.Expr, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(value, name, list(args), [], None, None, lineno=value.lineno or 1)


def looking(value: nodes.Expr) -> nodes.Expr:
    """The value, paid for unless it is a constant."""
    if isinstance(value, nodes.Const):
        return value
    return own_filter(LOOK, value)


# -- the functions of those filters --
def pay(steps: Any) -> bool:
    budget().step(max(steps, 0))  # so that a template that calls this cannot gain steps
    return True


def look(value: Any) -> Any:
    """Pays for a value that is compared, or is the key of a dict."""
    if isinstance(value, LoopContext):  # `x in loop` would iterate
        raise SecurityError("a chat template may not compare its loop with anything")
    if not is_small(value):
        compared(value)
    return value


def is_small(value: Any) -> bool:
    """Whether a comparison costs no more than its node."""
    kind = type(value)
    if kind is str:
        return len(value) < SMALL
    if kind is int:
        return bool(value.bit_length() < SMALL)
    return kind in (bool, type(None))


def slice_of(value: Any, start: Any, stop: Any, step: Any) -> Any:
    part = value[start:stop:step]
    if isinstance(part, str | list | tuple):
        budget().make(size_of(part))
    return part


def concat(parts: Iterable[Any]) -> str:
    for part in parts:
        budget().show(part)
    return str_join(parts)


OWN_FILTERS = {PAY: pay, LOOK: look, SLICE: slice_of, CONCAT: concat}
