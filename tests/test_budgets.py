"""How long files, classes and functions of the package may be, so that each can be read at once."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from tests.helpers.crawls import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MOST_LINES = {
    "file": 220,
    "ClassDef": 150,
    "FunctionDef": 25,
    "AsyncFunctionDef": 25,
}


def lengths(file: Path) -> Iterator[tuple[str, str, int]]:
    """The kind, the name and the lines of a file and of all that it defines."""
    name, text = file.relative_to(ROOT).as_posix(), file.read_text()
    yield "file", name, len(text.splitlines())
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            yield type(node).__name__, f"{name}: {node.name}", lines


def test_no_file_class_or_function_is_longer_than_its_budget() -> None:
    too_long = [
        f"{name} has {lines} lines"
        for file in sorted((ROOT / "spa5").rglob("*.py"))
        for kind, name, lines in lengths(file)
        if lines > MOST_LINES[kind]
    ]
    assert not too_long, "\n".join(too_long)
