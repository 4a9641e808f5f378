"""Rows of JSON: an object a line, or one array of objects."""

import json
from collections.abc import Iterable, Iterator
from itertools import product
from math import prod
from typing import Any

import polars as pl

from ovseg.data.build.columns import Layout, find_columns
from ovseg.data.build.lines import TablePart, line_blocks, read_head, stretch
from ovseg.data.dataset.plan import Tally
from ovseg.data.streams import open_binary, read_whole

_SCHEMA = {"locator": pl.String, "caption": pl.String}
_MALFORMED = "not a JSON object with the named columns"
_MOST_CAPTIONS = 1_000  # of one image
_FAULTS = (ValueError, KeyError, TypeError, RecursionError)


def is_array(address: str, layout: Layout) -> bool:
    """Whether a file of JSON begins as an array: it can only be read as a whole."""
    return layout.format == "jsonl" and read_head(address, 1 << 10).lstrip()[:1] == b"["


def check_keys(address: str, layout: Layout) -> None:
    """UsageError where none of the first objects has a wanted key."""
    objects: Iterator[dict[str, Any]]
    if is_array(address, layout):
        objects = filter(_is_object, _whole(address) or ())
    else:
        objects = _objects(read_head(address).split(b"\n"))
    keys: dict[str, None] = {}
    for row in objects:
        keys.update(dict.fromkeys(map(str, row)))
        if set(layout.wanted) <= keys.keys():
            return
    if keys:
        find_columns(list(keys), Layout("jsonl", layout.locator, layout.captions), address)


def _objects(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            row = json.loads(line)
        except _FAULTS:
            continue
        if isinstance(row, dict):
            yield row


def read_jsonl(
    address: str, layout: Layout, tally: Tally, part: TablePart
) -> Iterator[pl.DataFrame]:
    """Locators and captions; where a caption is a list of texts, a row for each."""
    if is_array(address, layout) and (values := _whole(address)) is not None:
        yield _frame(values, layout, tally)
        return
    with open_binary(address) as stream:
        for block in line_blocks(stretch(stream, part), tally):
            yield _frame((line for line in block.split(b"\n") if line.strip()), layout, tally)


def _whole(address: str) -> list[Any] | None:
    """The elements of an array; None where the file is none, but lines that begin like one."""
    content = read_whole(address)
    try:
        values = json.loads(content)
    except _FAULTS:
        return None
    return values if isinstance(values, list) and any(map(_is_object, values)) else None


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def _frame(values: Iterable[Any], layout: Layout, tally: Tally) -> pl.DataFrame:
    """Rows of lines that are still to be parsed, or of objects that were."""
    rows: list[tuple[str | None, str | None]] = []
    for value in values:
        try:
            rows += _rows(json.loads(value) if isinstance(value, bytes) else value, layout)
        except _FAULTS:
            tally.drop(_MALFORMED)
    return pl.DataFrame(rows, schema=_SCHEMA, orient="row")


def _rows(row: dict[str, Any], layout: Layout) -> list[tuple[str | None, str | None]]:
    locator = row[str(layout.locator)]
    if not isinstance(locator, str | None):
        raise TypeError("a locator is text")
    columns = [_texts(row[str(name)]) for name in layout.captions]
    if prod(map(len, columns)) > _MOST_CAPTIONS:
        raise ValueError("lists of captions that cross")
    return [(_sound(locator), _joined(texts)) for texts in product(*columns)]


def _texts(value: Any) -> list[str | None]:
    """The captions that one column has: one, or a list of them; an empty list is no caption."""
    texts: list[Any] = value if isinstance(value, list) else [value]
    if not all(isinstance(text, str | None) for text in texts):
        raise TypeError("columns must hold text")
    return texts or [None]


def _joined(texts: Iterable[str | None]) -> str | None:
    present = [text for text in texts if text is not None]
    return _sound(" ".join(present)) if present else None


def _sound(text: str | None) -> str | None:
    """A text; ValueError where it has half a character, from "\\ud800": it counts as malformed."""
    if text is not None and not text.isascii():
        text.encode("utf-8")
    return text
