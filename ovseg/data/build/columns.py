"""Which columns of a table hold addresses and captions, and what to say where none does."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import polars as pl

from ovseg.data.images import SUFFIXES
from ovseg.documents import digits
from ovseg.errors import UsageError

_SHOWN = 30  # column names told in a message


@dataclass(frozen=True)
class Layout:
    """How a table is laid out; columns are header names, or 0-based numbers.

    `captions` are joined with a space. `encoded` undoes form encoding (`%20`, `+`), as in YFCC.
    """

    format: str  # "tsv", "csv", "jsonl" or "parquet"
    locator: str | int
    captions: tuple[str | int, ...]
    header: bool = False
    encoded: bool = False

    @property
    def numbered(self) -> bool:
        """Whether columns that have names can be called by their numbers, too."""
        return self.header or self.format == "parquet"

    @property
    def wanted(self) -> list[str]:
        """The column of addresses and then those of captions."""
        return [str(self.locator), *map(str, self.captions)]


def find_columns(names: Sequence[str], layout: Layout, address: str) -> list[int]:
    """Where the wanted columns stand among `names`: a name that is there once, or a number.

    Raises:
        UsageError: one is not there, or twice; the message says what to give instead.
    """
    return [_find(names, wanted, layout, address) for wanted in layout.wanted]


def _find(names: Sequence[str], wanted: str, layout: Layout, address: str) -> int:
    found = [place for place, name in enumerate(names) if name == wanted]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(
            f"{address} has {len(found)} columns named {wanted!r} (numbers "
            f"{', '.join(map(str, found))}): name the columns by number, such as "
            f"{_by_number(True, 0, found[0])}"
        )
    number = digits(wanted)
    if layout.numbered and number is not None and number < len(names):
        return number
    raise UsageError(_absent(names, wanted, layout, address))


def _absent(names: Sequence[str], wanted: str, layout: Layout, address: str) -> str:
    told = ", ".join(name[:60] for name in names[:_SHOWN])
    start = f"{address} has no column {wanted!r}"
    addresses = [place for place, name in enumerate(names) if looks_like_address(name)]
    others = [place for place in range(len(names)) if place not in addresses]
    if layout.header and addresses and others and layout.format in ("tsv", "csv"):
        caption = max(others, key=lambda place: len(names[place]))
        return (
            f"{start}: its first line is a row, not names ({told}); "
            f"give {_by_number(False, addresses[0], caption)}"
        )
    return (
        f"{start}; it has {told}: choose with --set source.url_column=NAME and "
        "--set 'source.caption_columns=[\"NAME\"]'"
    )


def _by_number(header: bool, locator: int, caption: int) -> str:
    return (
        f"--set source.header={str(header).lower()} --set source.url_column={locator} "
        f"--set 'source.caption_columns=[{caption}]'"
    )


def pick(columns: Sequence[Any]) -> pl.DataFrame:
    """The two columns a chunk is made of, from Arrow's of the locator and of the captions.

    Still as bytes where the source had bytes.

    A list of captions gives a row for each.
    """
    series = [pl.Series(pl.from_arrow(column)) for column in columns]
    frame = pl.DataFrame({str(number): values for number, values in enumerate(series)})
    for name in frame.columns[1:]:
        if isinstance(frame.schema[name], pl.List):
            some = pl.col(name).list.len() > 0  # whether an empty list leaves a row is a version's
            frame = frame.with_columns(pl.when(some).then(pl.col(name))).explode(name)
    captions = [pl.col(name) for name in frame.columns[1:]]
    joined = captions[0]
    if len(captions) > 1:
        parts = [part.cast(pl.String, strict=False) for part in captions]
        joined = pl.concat_str(parts, separator=" ", ignore_nulls=True)
    return frame.select(locator=pl.col("0"), caption=joined)


def looks_like_address(value: str) -> bool:
    """Whether a value is more likely a URL or an image's file name than words."""
    value = value.strip()
    if not value or any(letter.isspace() for letter in value):
        return False
    return "://" in value or PurePosixPath(value).suffix.lower() in SUFFIXES
