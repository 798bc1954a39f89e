"""Makes a chat template pay for what it does where Jinja asks nobody: see `sandbox`. Importing this imports Jinja."""

# ruff: noqa: N802  (the visitor finds its methods by the names of the nodes)
from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import LoopContext, str_join
from jinja2.visitor import NodeTransformer

from minigen.chat.budget import size_of
from minigen.chat.prices import budget, looked

SMALL = 256  # characters or bits of what costs nothing to compare
FUNCTION = 50  # nodes that a macro counts for where it is defined
# Filters of our own, which no template can write; one that makes such a name finds nothing that helps it.
PAY, LOOK, SLICE, CONCAT = " pay", " look", " slice", " concat"


class Metering(NodeTransformer):
    """Makes a template pay: for its nodes where a list of statements begins, and for what comparisons, slices and
    texts put together look at, which Jinja asks nobody about.
    """

    LISTS = ("body", "else_")

    def generic_visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> nodes.Node:
        lists = {name: getattr(node, name, None) for name in self.LISTS}
        costs = {name: self.cost(found) for name, found in lists.items() if isinstance(found, list)}
        super().generic_visit(node, *args, **kwargs)
        for name, cost in costs.items():
            statements = getattr(node, name)
            if statements or name == "body":  # an empty loop goes round too
                paying = nodes.ExprStmt(own_filter(PAY, nodes.Const(cost)), lineno=node.lineno)
                statements.insert(0, paying)
        return node

    def visit_For(self, node: nodes.For) -> nodes.Node:
        if node.test is not None:  # what it leaves out is looked at too
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
        ends = [end or nodes.Const(None) for end in (node.arg.start, node.arg.stop, node.arg.step)]
        return own_filter(SLICE, node.node, *ends)

    def cost(self, statements: Iterable[nodes.Node]) -> int:
        """The nodes of some statements, less those in lists of statements of their own, with the text they write."""
        waiting, cost = list(statements), 1
        while waiting:
            node = waiting.pop()
            cost += FUNCTION if isinstance(node, nodes.Macro | nodes.CallBlock) else 1
            if isinstance(node, nodes.TemplateData):
                cost += len(node.data) >> 5
            waiting += node.iter_child_nodes(exclude=self.LISTS)
        return cost


def own_filter(name: str, value: nodes.Expr, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(value, name, list(args), [], None, None, lineno=value.lineno or 1)


def looking(value: nodes.Expr) -> nodes.Expr:
    return value if isinstance(value, nodes.Const) else own_filter(LOOK, value)


# -- the functions of those filters --
def pay(steps: Any) -> bool:
    budget().step(max(steps, 0))  # a template that found the name cannot earn
    return True


def look(value: Any) -> Any:
    """Before a value is compared, or is the key of a dict."""
    if isinstance(value, LoopContext):  # `x in loop` goes through it
        raise SecurityError("a chat template may not compare its loop with anything")
    if not is_small(value):
        looked(value)
    return value


def is_small(value: Any) -> bool:
    """Whether a comparison costs no more than the node that it is."""
    kind = type(value)
    if kind is str:
        return len(value) < SMALL
    return kind in (bool, type(None)) or (kind is int and value.bit_length() < SMALL)


def cut(value: Any, start: Any, stop: Any, step: Any) -> Any:
    found = value[start:stop:step]
    if isinstance(found, str | list | tuple):
        budget().make(size_of(found))
    return found


def concat(parts: Iterable[Any]) -> str:
    for part in parts:
        budget().show(part)
    return str_join(parts)


OWN_FILTERS = {PAY: pay, LOOK: look, SLICE: cut, CONCAT: concat}
