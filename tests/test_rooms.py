"""The rooms of the house: each imports only from those below it, see spa5/__init__.py."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from tests.helpers.crawls import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# From the top to the bottom; what stands in one line is side by side.
FLOORS = [
    {"spiders"},
    {"items"},
    {"commands"},
    {"doctor", "screen"},
    {"middlewares", "extensions", "feeds", "settings"},
    {"pipelines", "downloadermiddlewares"},
    {"crew"},
    {"mongo"},
    {"catalogue"},
    {"engine"},
]
LEVELS = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}


def room_of(module: str) -> str:
    return module.split(".")[1]


def imports(file: Path) -> Iterator[str]:
    """What a module imports when it runs; what it needs for types alone makes no circle."""
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body.clear()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("spa5"):
            for name in node.names:
                yield from (f"{node.module}.{name.name}", str(node.module))
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.startswith("spa5."))


def modules() -> dict[str, Path]:
    files = (ROOT / "spa5").rglob("*.py")
    names = {file: file.relative_to(ROOT).with_suffix("").as_posix() for file in files}
    own = {name.replace("/", ".").removesuffix(".__init__"): file for file, name in names.items()}
    return {name: file for name, file in own.items() if name != "spa5"}


def test_every_room_imports_only_from_those_below_it() -> None:
    wrong = [
        f"{module} imports {other}"
        for module, file in modules().items()
        for other in imports(file)
        if other.count(".")
        and room_of(module) != room_of(other)
        and LEVELS[room_of(module)] >= LEVELS[room_of(other)]
    ]
    assert wrong == []


def test_no_module_needs_one_that_needs_it() -> None:
    known = modules()
    needs = {name: {one for one in imports(file) if one in known} for name, file in known.items()}
    while done := {name for name, others in needs.items() if not others}:
        needs = {name: others - done for name, others in needs.items() if name not in done}
    assert needs == {}


def test_nothing_but_spiders_and_items_speaks_of_one_site_s_items() -> None:
    files = [file for name, file in modules().items() if room_of(name) not in ("spiders", "items")]
    files.append(ROOT / "spa5" / "__init__.py")
    words = re.compile(r"\b(book|movie)s?\b|scrape\.center", re.IGNORECASE)
    wrong = [file for file in files if words.search(file.read_text())]
    assert wrong == []


def test_the_tests_readme_leads_from_every_module_to_its_tests_and_back() -> None:
    tests, package = ROOT / "tests", ROOT / "spa5"
    text = (tests / "README.md").read_text()
    named = {
        name for name in re.findall(r"`((?:\w+/)?\w+\.py)`", text) if (package / name).exists()
    }
    files = [file for file in modules().values() if file.name != "__init__.py"]
    assert {file.relative_to(package).as_posix() for file in files} - named == set()
    linked = set(re.findall(r"\]\(([\w/]+\.py)\)", text))
    assert linked == {file.relative_to(tests).as_posix() for file in tests.rglob("test_*.py")}


def test_no_test_module_imports_another() -> None:
    importing = re.compile(r"(from|import) tests\.(\w+\.)*(test_\w+|conftest)\b")
    files = list((ROOT / "tests").rglob("*.py"))
    assert files
    assert [file for file in files if importing.search(file.read_text())] == []


def test_every_folder_with_modules_is_a_package_or_an_egg_would_lack_it() -> None:
    folders = {file.parent for file in (ROOT / "spa5").rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []
