"""Feeds: what Scrapy's exporters need to write every item without a loss."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Any

from itemadapter import ItemAdapter
from scrapy.exporters import CsvItemExporter, XmlItemExporter
from scrapy.utils.conf import feed_complete_default_values_from_settings
from scrapy.utils.misc import build_from_crawler, load_object

if TYPE_CHECKING:
    from scrapy.crawler import Crawler
    from scrapy.exporters import BaseItemExporter
    from scrapy.settings import BaseSettings
    from typing_extensions import Self

_NO_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_XML_NAME = re.compile("[A-Za-z_][A-Za-z0-9_.-]*")


def formats(settings: BaseSettings) -> dict[str, str]:
    """Return the exporters of the settings by the name of their format."""
    exporters = settings.getwithbase("FEED_EXPORTERS")
    return {name: path for name, path in exporters.items() if path is not None}


def exporter(crawler: Crawler, file: IO[bytes], format_name: str) -> BaseItemExporter:
    """Make an exporter as Scrapy makes it for a feed, with what the settings say of feeds."""
    feed = feed_complete_default_values_from_settings({"format": format_name}, crawler.settings)
    made: BaseItemExporter = build_from_crawler(
        load_object(formats(crawler.settings)[format_name]),
        crawler,
        file,
        fields_to_export=feed["fields"],
        encoding=feed["encoding"],
        indent=feed["indent"],
    )
    return made


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


class XmlExporter(XmlItemExporter):
    """Writes XML that can be read again. Null is an empty element, as it is empty in CSV.

    A character that XML can't hold becomes U+FFFD, and an object whose names can't be those of
    elements becomes JSON.
    """

    def serialize_field(self, field: Mapping[str, Any], name: str, value: Any) -> Any:
        return _for_xml(super().serialize_field(field, name, value))


def _for_xml(value: Any) -> Any:
    if isinstance(value, dict):
        if all(map(_XML_NAME.fullmatch, value)):
            return {name: _for_xml(inner) for name, inner in value.items()}
        value = json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return list(map(_for_xml, value))
    return "" if value is None else _NO_XML.sub("\ufffd", str(value))


def _is_continued(file: IO[bytes]) -> bool:
    """True for a file that holds items already, to which more are appended."""
    return getattr(file, "mode", "") == "ab" and file.tell() > 0
