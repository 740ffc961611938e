"""Sketch: writes the code of an item and its spider, given what a probe found.

Only checked names and quoted texts of the API get into it: no answer can become code.
"""

from __future__ import annotations

import json
import keyword
import re
from typing import TYPE_CHECKING, Any

from spa5.catalogue.fields import FieldError, clean_moment
from spa5.catalogue.item import CODE, INTEGER
from spa5.catalogue.layout import PLAIN_NAME, Layout, is_field_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_TYPES = {
    **dict.fromkeys(("line", "text"), "str | None"),
    "lines": "list[str]",
    "integer": "int | None",
    "number": "float | None",
    "moment": "datetime | None",
    "objects": "list[dict[str, Any]]",
}
_IMPORTED = {"Any", "CODE", "INTEGER", "Item", "Key", "Page"}
_DATE = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}([T ].*)?")
_DECIMAL = re.compile(r"-?[0-9]{1,15}\.[0-9]{1,15}")
_LONG_TEXT = 100  # characters
_WIDTH = 100  # of a line of code


def sketch(layout: Layout, spider: str) -> dict[str, str]:
    """Variables of the template. What the probe has not found is marked for a person."""
    item = spider.removesuffix("Spider").removesuffix("s")
    item += "Entry" if item in _IMPORTED else ""
    fields = "\n".join(_fields(layout))
    hooks = _hooks(layout)
    imports = _imports(fields, hooks)
    return {
        "item": item,
        "noun": item.lower(),
        "classname": f"My{spider}" if spider == "CatalogueSpider" else spider,
        "typing": "TYPE_CHECKING, Any" if "TYPE_CHECKING" in imports else "Any",
        "imports": imports,
        "fields": fields,
        "site": json.dumps(layout.site),
        "api_path": json.dumps(layout.path),
        "hooks": hooks,
    }


def _fields(layout: Layout) -> Iterator[str]:
    kind = {INTEGER: "INTEGER", CODE: "CODE"}.get(layout.kind, "")
    mark = "" if layout.details else "  # fill in: the key and its kind"
    yield f"    {layout.key}: {layout.kind.type.__name__} = key({kind}){mark}"
    samples = [detail for _, detail in layout.details] or layout.listed
    if not samples:
        yield "    name: str | None = line(listed=True)  # fill in: the fields, see spa5/items.py"
    left_out = []
    for name in dict.fromkeys(name for sample in samples for name in sample):
        seen = [one.get(name) for one in samples]
        cleaner = _cleaner(seen + [one.get(name) for one in layout.listed]) or _cleaner(seen)
        if cleaner and is_field_name(name) and name != layout.key:
            arguments = ["listed=True"] * _is_listed(name, layout) + list(cleaner[1:])
            yield _wrapped(f"    {name}: {_TYPES[cleaner[0]]} = {cleaner[0]}", arguments)
        elif name != layout.key and PLAIN_NAME.fullmatch(name):
            left_out.append(name)
    if names := ", ".join(left_out):
        yield f"    # `extra` keeps what has no cleaner here: {names}"[:_WIDTH].rstrip(" ,")


def _is_listed(name: str, layout: Layout) -> bool:
    """True if each entry of the index has the field, with the value that the detail has."""
    return all(name in entry for entry in layout.listed) and all(
        entry.get(name) == detail.get(name) for entry, detail in layout.details
    )


def _cleaner(values: Iterable[Any]) -> tuple[str, ...]:
    """The cleaner that fits these values, and its arguments; nothing where none fits."""
    values = [value for value in values if value is not None]
    kinds = {type(value) for value in values}
    if kinds == {list}:
        return _list_cleaner([one for value in values for one in value if one is not None])
    if kinds == {int}:
        return ("integer",) if all(abs(value) < 1 << 63 for value in values) else ()
    if kinds and kinds <= {int, float}:
        return ("number",)
    return _text_cleaner(map(str, values)) if kinds <= {str, int, float} else ()


def _list_cleaner(members: list[Any]) -> tuple[str, ...]:
    if {type(member) for member in members} <= {str, int, float}:
        return ("lines",)
    if not all(isinstance(member, dict) for member in members):
        return ()
    cleaners = {}
    for name in dict.fromkeys(name for member in members for name in member):
        values = [member.get(name) for member in members]
        is_flat = not any(isinstance(value, list) for value in values)
        is_member = PLAIN_NAME.fullmatch(name) and not keyword.iskeyword(name) and name != "listed"
        cleaner = _cleaner(values) if is_flat and is_member else ()
        if not cleaner:
            return ()
        cleaners[name] = cleaner[0]
    return "objects", *(f"{name}=clean_{cleaner}" for name, cleaner in cleaners.items())


def _text_cleaner(values: Iterable[str]) -> tuple[str, ...]:
    texts = [value.strip() for value in values if value.strip()]
    if texts and all(map(_DECIMAL.fullmatch, texts)):
        return ("number",)
    if texts and all(map(_is_moment, texts)):
        return ("moment",)
    is_long = any("\n" in one or (len(one) > _LONG_TEXT and "://" not in one) for one in texts)
    return ("text",) if is_long or not texts else ("line",)


def _is_moment(text: str) -> bool:
    try:
        return bool(_DATE.fullmatch(text) and clean_moment(text))
    except FieldError:
        return False


def _hooks(layout: Layout) -> str:
    """The hooks that differ from CatalogueSpider's; all of them where they are to be filled in."""
    mark = "        # fill in\n" if layout.trouble else ""
    default = _answers(Layout("", ""))
    return "".join(
        f"\n    def {hook}:\n{mark}        return {answer}\n"
        for hook, answer in _answers(layout).items()
        if mark or answer != default[hook]
    )


def _answers(layout: Layout) -> dict[str, str]:
    index = f'f"{{self.site}}{{self.path}}?{layout.query}{layout.paging}"'
    if len(f"        return {index}") > _WIDTH:
        index = index.replace(layout.query, f'{layout.query}"\n            f"')
        index = f"(\n            {index}\n        )"
    count = "".join(f"[{json.dumps(name)}]" for name in layout.count)
    return {
        "index_url(self, page: Page) -> str": index,
        "detail_url(self, key: Key) -> str": f'f"{{self.site}}{layout.detail}"',
        "entries(self, data: Any) -> Any": "".join(
            ["data", *(f"[{json.dumps(name)}]" for name in layout.entries)]
        ),
        "count(self, data: Any) -> Any": f"data{count}"
        if count
        else "None  # the API does not tell",
    }


def _imports(fields: str, hooks: str) -> str:
    calls = {*re.findall(r" = (\w+)\(", fields), *re.findall(r"=(clean_\w+)", fields)}
    used = sorted(calls - {"key"})
    line = f"from spa5.catalogue.fields import {', '.join(used)}"
    if len(line) > _WIDTH:
        line = "from spa5.catalogue.fields import (\n    " + ",\n    ".join(used) + ",\n)"
    kind = re.findall(r" key\((\w+)\)", fields)
    lines = [line] if used else []
    lines.append(f"from spa5.catalogue.item import {', '.join([*kind, 'Item', 'key'])}")
    lines.append("from spa5.catalogue.spider import CatalogueSpider")
    standard = "    from datetime import datetime" * ("datetime |" in fields)
    own = "    from spa5.catalogue.item import Key\n" * ("Key)" in hooks)
    own += "    from spa5.catalogue.walk import Page" * ("Page)" in hooks)
    if for_types := "\n\n".join(one.rstrip("\n") for one in (standard, own) if one):
        lines += ["", "if TYPE_CHECKING:", for_types]
    return "\n".join(lines)


def _wrapped(head: str, arguments: list[str]) -> str:
    """A call in lines of at most 100 characters, as ruff writes it."""
    within = ", ".join(arguments)
    if len(head) + len(within) + 2 <= _WIDTH:
        return f"{head}({within})"
    if len(within) + 8 <= _WIDTH:
        return f"{head}(\n        {within}\n    )"
    return f"{head}(\n" + "".join(f"        {one},\n" for one in arguments) + "    )"
