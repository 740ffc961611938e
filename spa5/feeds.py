"""CsvExporter: items in CSV, without a loss."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Any

from itemadapter import ItemAdapter
from scrapy.exporters import CsvItemExporter

if TYPE_CHECKING:
    from scrapy.crawler import Crawler
    from typing_extensions import Self


class CsvExporter(CsvItemExporter):
    """Writes lists and objects as JSON: joined by commas they could not be told apart again.

    A file has one header, also if it gets no item or is appended to. Without an item the header
    names the fields of the spider's `item_class`.
    """

    def __init__(self, file: Any, item_class: type | None = None, **kwargs: Any):
        super().__init__(file, **kwargs)
        self.item_class = item_class
        self.is_empty = True
        if _is_continued(file):
            self.include_headers_line = False

    @classmethod
    def from_crawler(cls, crawler: Crawler, file: IO[bytes], **kwargs: Any) -> Self:
        return cls(file, getattr(crawler.spider, "item_class", None), **kwargs)

    def export_item(self, item: Any) -> None:
        self.is_empty = False
        super().export_item(item)

    def finish_exporting(self) -> None:
        if self.is_empty and self.include_headers_line and (names := self._names()):
            self.csv_writer.writerow(names)
        super().finish_exporting()

    def _names(self) -> list[str]:
        if self.fields_to_export is None:
            known = ItemAdapter.get_field_names_from_class(self.item_class or dict)
            return list(known or ())
        if isinstance(self.fields_to_export, Mapping):
            return list(self.fields_to_export.values())
        return list(self.fields_to_export)

    def serialize_field(self, field: Mapping[str, Any], name: str, value: Any) -> Any:
        if isinstance(value, (list, dict)):
            return json.dumps(value, ensure_ascii=False)
        return super().serialize_field(field, name, value)


def _is_continued(file: IO[bytes]) -> bool:
    """True for a file that holds items already, to which more are appended."""
    return getattr(file, "mode", "") == "ab" and file.tell() > 0
