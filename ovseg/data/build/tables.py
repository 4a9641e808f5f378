"""Rows of text tables: TSV, CSV, JSONL and parquet, from any fsspec address, in bounded memory.

TSV and JSONL come through `lines`, which a line of any length cannot upset; pyarrow's parser has
the rest. Quoted CSV goes to pyarrow directly.
"""

from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Callable, Iterator
from typing import BinaryIO
from urllib.parse import unquote_plus

import fsspec
import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv

from ovseg.data.build.bad_utf8 import mark, marked_stream, unmark
from ovseg.data.build.captions import clean
from ovseg.data.build.columns import Layout, find_columns, pick
from ovseg.data.build.json_rows import check_keys, is_array, read_jsonl
from ovseg.data.build.lines import (
    BLOCK,
    WHOLE,
    TablePart,
    line_blocks,
    read_head,
    stretch,
)
from ovseg.data.build.parquet_rows import parquet_names, read_parquet, row_groups
from ovseg.data.build.quotes import SwallowedRows
from ovseg.data.dataset.plan import Tally
from ovseg.data.streams import is_packed, open_binary
from ovseg.errors import DataError, UsageError

_LINES_LOOKED_AT = 200
PART = 64 << 20  # bytes that one worker reads at a time


def table_parts(address: str, layout: Layout, size: int = PART) -> list[TablePart]:
    """The table in parts of about `size` bytes; one part where it cannot be entered midway."""
    if layout.format == "parquet":
        return [TablePart(group, group + 1) for group in range(row_groups(address))]
    filesystem, path = fsspec.core.url_to_fs(address)
    length = None if is_packed(address) else filesystem.info(path).get("size")
    if layout.format not in ("tsv", "jsonl") or not length or is_array(address, layout):
        return [WHOLE]
    return [TablePart(start, min(start + size, length)) for start in range(0, length, size)]


def read_table(
    address: str, layout: Layout, tally: Tally, part: TablePart = WHOLE
) -> Iterator[pl.DataFrame]:
    """Chunks (see `captions.CHUNK_SCHEMA`) of a table; unusable rows are counted in `tally`."""
    readers = {"tsv": _read_tsv, "csv": _read_csv, "jsonl": read_jsonl, "parquet": read_parquet}
    if layout.format not in readers:
        raise UsageError(f"unknown table format {layout.format!r}: one of {', '.join(readers)}")
    for frame in readers[layout.format](address, layout, tally, part):
        yield clean(_decode_forms(frame) if layout.encoded else frame, tally)


def check_columns(address: str, layout: Layout) -> None:
    """Look at the beginning of a table only: are the wanted columns there?

    Raises:
        UsageError: one is not there, or twice.
        DataError: there is no row, or it is no such table.
    """
    if layout.format == "parquet":
        find_columns(parquet_names(address), layout, address)
    elif layout.format == "jsonl":
        check_keys(address, layout)
    elif layout.format == "csv":
        find_columns(_csv_names(address, layout), layout, address)
    else:
        find_columns(_tsv_names(read_head(address), layout, address), layout, address)


def _read_tsv(
    address: str, layout: Layout, tally: Tally, part: TablePart
) -> Iterator[pl.DataFrame]:
    head = read_head(address)
    names = _tsv_names(head, layout, address)
    columns = find_columns(names, layout, address)
    quoted = _is_quoted(head, columns, len(names))
    skip = int(layout.header and part.start == 0)
    with open_binary(address) as stream:
        for number, block in enumerate(line_blocks(stretch(stream, part), tally)):
            if number == part.start == 0:
                block = block.removeprefix(BOM_UTF8)
            lines = mark(_unquoted(block) if quoted else block)
            if table := _parse_tsv(lines, len(names), skip, tally):
                yield unmark(pick([table.column(place) for place in columns]))
            skip = 0


def _tsv_names(head: bytes, layout: Layout, address: str) -> list[str]:
    """Column names: the header's, or numbers, as many as most of the first lines have."""
    lines = head.split(b"\n")[:_LINES_LOOKED_AT]
    widths = Counter(line.count(b"\t") + 1 for line in lines if line.strip())
    if not widths:
        raise DataError(f"{address} holds no rows")
    if layout.header:
        first = _unquoted(lines[0].strip(b"\r"))
        return first.decode("utf-8", "replace").split("\t")
    return [str(number) for number in range(widths.most_common(1)[0][0])]


def _is_quoted(head: bytes, columns: list[int], width: int) -> bool:
    """Whether all values of these columns are quoted in the first lines, as spreadsheets may do."""
    lines = head.split(b"\n")
    rows = [line.rstrip(b"\r").split(b"\t") for line in lines[:_LINES_LOOKED_AT] if line.strip()]
    values = [row[column] for row in rows if len(row) == width for column in columns]
    return bool(values) and all(_unquote(value) != value for value in values)


def _unquoted(block: bytes) -> bytes:
    """Lines of tab-separated values without the quotes around them; a tab ends a value anyhow."""
    lines = (line.rstrip(b"\r").split(b"\t") for line in block.split(b"\n"))
    return b"\n".join(b"\t".join(map(_unquote, values)) for values in lines)


def _unquote(value: bytes) -> bytes:
    if len(value) < 2 or not (value.startswith(b'"') and value.endswith(b'"')):
        return value
    return value[1:-1].replace(b'""', b'"')


def _parse_tsv(block: bytes, width: int, skip: int, tally: Tally) -> pa.Table | None:
    def reject(row: pa_csv.InvalidRow) -> str:
        del row
        tally.drop("wrong number of columns")
        return "skip"

    names = [str(number) for number in range(width)]
    try:
        return pa_csv.read_csv(
            pa.BufferReader(block),
            read_options=pa_csv.ReadOptions(
                column_names=names, skip_rows=skip, block_size=len(block) + 1, use_threads=False
            ),
            parse_options=pa_csv.ParseOptions(
                delimiter="\t", quote_char=False, invalid_row_handler=reject
            ),
            convert_options=_as_bytes(names),
        )
    except pa.ArrowInvalid as error:
        if "Empty CSV" in str(error):
            return None
        raise


def _as_bytes(names: list[str]) -> pa_csv.ConvertOptions:
    """No guessing: a column that looks like dates may hold words in the last row."""
    return pa_csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.binary()), check_utf8=False, strings_can_be_null=False
    )


def _decode_forms(frame: pl.DataFrame) -> pl.DataFrame:
    decoded = pl.col("locator", "caption").cast(pl.String, strict=False)
    return frame.with_columns(decoded.map_elements(unquote_plus, return_dtype=pl.String))


def _read_csv(
    address: str, layout: Layout, tally: Tally, part: TablePart
) -> Iterator[pl.DataFrame]:
    del part  # quoted line breaks: nobody can tell midway whether a row begins
    names = _csv_names(address, layout)
    columns = find_columns(names, layout, address)
    swallowed = SwallowedRows(len(names), columns[0], tally)
    read = 0
    with open_binary(address) as stream:
        try:
            batches = _open_csv(
                stream, layout, swallowed.reject, _as_bytes(_own_names(names, layout))
            )
            for batch in batches:
                kept = swallowed.without(batch)
                yield unmark(pick([kept.column(place) for place in columns]))
                read += batch.num_rows
        except pa.ArrowInvalid as error:
            raise DataError(
                f"{address} cannot be read as CSV: {_csv_fault(error, read)}"
            ) from error


def _open_csv(
    stream: BinaryIO,
    layout: Layout,
    reject: Callable[[pa_csv.InvalidRow], str],
    convert: pa_csv.ConvertOptions | None = None,
) -> pa_csv.CSVStreamingReader:
    return pa_csv.open_csv(
        marked_stream(stream),
        read_options=pa_csv.ReadOptions(
            block_size=BLOCK, use_threads=False, autogenerate_column_names=not layout.header
        ),
        parse_options=pa_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=reject),
        convert_options=convert,
    )


def _csv_names(address: str, layout: Layout) -> list[str]:
    """The header's names as the parser itself reads them, or numbers."""
    read_head(address)
    with open_binary(address) as stream:
        try:
            names = _open_csv(stream, layout, lambda _: "skip").schema.names
        except pa.ArrowInvalid as error:
            raise DataError(f"{address} cannot be read as CSV: {_csv_fault(error, 0)}") from error
    return names if layout.header else [str(number) for number in range(len(names))]


def _own_names(names: list[str], layout: Layout) -> list[str]:
    """pyarrow calls the columns of a headerless file f0, f1, ..."""
    return names if layout.header else [f"f{name}" for name in names]


def _csv_fault(error: pa.ArrowInvalid, read: int) -> str:
    if "straddl" in str(error) or "out of sync" in str(error):
        return f"after {read} rows a value runs over {BLOCK >> 20} MiB: is a quote left open there?"
    return str(error)
