"""Making a failing program small: drop statements and simplify expressions of its source while it still
fails in the same way."""

from __future__ import annotations

import ast
import time
from collections.abc import Callable, Iterator

StillFails = Callable[[str], bool]


def reduce(source: str, still_fails: StillFails, seconds: float = 60.0) -> str:
    """The smallest source found in this time for which ``still_fails`` holds; ``source`` itself must fail."""
    deadline = time.monotonic() + seconds
    best = ast.unparse(ast.parse(source))
    if not still_fails(best):
        return source
    progress = True
    while progress and time.monotonic() < deadline:
        progress = False
        for edit in (_drop_statement, _shorten_expression):
            position = 0
            while time.monotonic() < deadline:
                candidate = edit(best, position)
                if candidate is None:
                    break
                if candidate != best and still_fails(candidate):
                    best, progress = candidate, True
                else:
                    position += 1
    return best


def _drop_statement(source: str, position: int) -> str | None:
    """The source without its ``position``-th statement, largest first; None when there are not that many."""
    tree = ast.parse(source)
    places = sorted(_statements(tree), key=lambda place: -len(list(ast.walk(place[0][place[1]]))))
    if position >= len(places):
        return None
    body, index = places[position]
    del body[index]
    if not body:
        body.append(ast.Pass())
    return ast.unparse(tree)


def _statements(tree: ast.Module) -> Iterator[tuple[list[ast.stmt], int]]:
    """Every statement inside ``make`` that may go, as (list, index)."""
    (make,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "make")
    for node in ast.walk(make):
        body = getattr(node, "body", None)
        if not isinstance(body, list):
            continue
        for index, statement in enumerate(body):
            if not isinstance(statement, (ast.Return, ast.Pass)):
                yield body, index


class _Shorten(ast.NodeTransformer):
    """Replaces the ``position``-th replaceable expression inside ``make`` by a part of it or by a
    constant."""

    def __init__(self, position: int) -> None:
        self.position = position
        self.count = 0
        self.inside = False

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        outer, self.inside = self.inside, self.inside or node.name == "make"
        found = self.generic_visit(node)
        self.inside = outer
        return found

    def generic_visit(self, node: ast.AST) -> ast.AST:
        if self.inside and isinstance(node, ast.expr):
            for part in _parts(node):
                if self.count == self.position:
                    self.count += 1
                    return part
                self.count += 1
        return super().generic_visit(node)


def _parts(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp):
        return [node.left, node.right]
    if isinstance(node, ast.Call):
        return [*node.args[:3]]
    if isinstance(node, (ast.Attribute, ast.Subscript)) and isinstance(getattr(node, "ctx", None), ast.Load):
        return [ast.Constant(1.0)] if isinstance(node, ast.Attribute) and node.attr == "value" else []
    return []


def _shorten_expression(source: str, position: int) -> str | None:
    tree = ast.parse(source)
    shorten = _Shorten(position)
    tree = shorten.visit(tree)
    if shorten.count <= position:
        return None
    try:
        return ast.unparse(ast.fix_missing_locations(tree))
    except Exception:
        return source
