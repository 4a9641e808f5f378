"""Rows of a parquet file.

A small file can stand for a large table: one caption of a megabyte, ten thousand times. Text is
therefore read as a dictionary, in which it stands once, and cut before it is repeated.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ovseg.data.build.captions import LONGEST_CAPTION
from ovseg.data.build.columns import Layout, find_columns, pick
from ovseg.data.build.lines import TablePart
from ovseg.data.dataset.parquet import FAULTS, damage_told, require_proportion
from ovseg.data.dataset.plan import Tally
from ovseg.data.streams import is_packed, open_binary
from ovseg.errors import DataError, UsageError

_ROWS = 1 << 14  # in memory at a time
_FEW_ROWS = 1 << 10  # of text that cannot be had as a dictionary
_CUT = LONGEST_CAPTION + 1  # bytes of a value; so long, it is counted as too long


def parquet_names(address: str) -> list[str]:
    """The names of the columns."""
    with _opened(address) as (_, table):
        return list(table.schema_arrow.names)


def row_groups(address: str) -> int:
    """How many parts of it can be read apart."""
    with _opened(address) as (_, table):
        return table.metadata.num_row_groups


def read_parquet(
    address: str, layout: Layout, tally: Tally, part: TablePart
) -> Iterator[pl.DataFrame]:
    """Locators and captions; where a caption is a list of texts, a row for each."""
    del tally  # a parquet file is well-formed or refused as a whole
    with _opened(address) as (stream, table):
        schema = table.schema_arrow
        places = find_columns(schema.names, layout, address)
        _require_text(schema, places, address)
        names = [schema.names[place] for place in places]
        # Of columns that share a name, a batch has all, in their order.
        nth = [schema.names[:place].count(schema.names[place]) for place in places]
        end = table.metadata.num_row_groups if part.end is None else part.end
        groups = list(range(part.start, end))
        require_proportion(table, stream, groups)
        text, others = _text_columns(table, names, groups)
        table = pq.ParquetFile(stream, metadata=table.metadata, read_dictionary=text)
        rows = _FEW_ROWS if others else _ROWS
        for batch in table.iter_batches(rows, row_groups=groups, columns=names):
            found = [batch.schema.get_all_field_indices(name) for name in names]
            columns = [batch.column(found[i][n]) for i, n in enumerate(nth)]
            yield pick([_as_bytes(column) for column in columns])


@contextmanager
def _opened(address: str) -> Iterator[tuple[BinaryIO, pq.ParquetFile]]:
    """The file, and the table in it.

    Raises:
        UsageError: it is packed as a whole, so that nothing in it can be reached by itself.
        DataError: it is no parquet file, or whatever Arrow says of it in the block.
    """
    if is_packed(address):
        raise UsageError(f"{address}: parquet is packed by itself: unpack the file first")
    with damage_told(address, "fetch it again"), open_binary(address) as stream:
        try:
            table = pq.ParquetFile(stream)
        except FAULTS as error:
            raise DataError(f"{address} is no parquet file: {error}") from error
        yield stream, table


def _text_columns(
    table: pq.ParquetFile, names: list[str], groups: list[int]
) -> tuple[list[str], list[str]]:
    """The leaves of these columns that are text: those to be had as dictionaries, and the others.

    The others are stored as differences, which Arrow reads in one way only.
    """
    leaves = [table.schema.column(number) for number in range(len(table.schema))]
    as_dictionary: list[str] = []
    others: list[str] = []
    for number, leaf in enumerate(leaves):
        if leaf.physical_type != "BYTE_ARRAY" or not _belongs(leaf.path, names):
            continue
        found = (table.metadata.row_group(group).column(number) for group in groups)
        encodings = {encoding for column in found for encoding in column.encodings}
        differences = any(encoding.startswith("DELTA") for encoding in encodings)
        (others if differences else as_dictionary).append(leaf.path)
    return as_dictionary, others


def _belongs(path: str, names: list[str]) -> bool:
    """Whether a leaf is one of these columns, or in one."""
    return any(path == name or path.startswith(f"{name}.") for name in names)


def _require_text(schema: pa.Schema, places: list[int], address: str) -> None:
    for order, place in enumerate(places):
        field = schema.field(place)
        if not _is_text(field.type, lists=order > 0):
            holds = "text or lists of text" if order else "addresses or file names"
            raise UsageError(
                f"{address}: the column {field.name!r} must hold {holds}, it holds {field.type}"
            )


def _is_text(kind: pa.DataType, *, lists: bool) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if lists and (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return _is_text(kind.value_type, lists=False)
    tests = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_integer,
        pa.types.is_null,
    )
    return any(test(kind) for test in tests)


def _as_bytes(column: Any) -> pa.Array:
    """Text as bytes, which nobody takes for UTF-8 before it was looked at; lists of it as such."""
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        values = _as_bytes(column.flatten())
        lengths = pc.fill_null(pc.list_value_length(column), 0).cast(pa.int64()).to_numpy()
        offsets = pa.array([0, *lengths.cumsum()], pa.int64())
        return pa.LargeListArray.from_arrays(offsets, values)
    if pa.types.is_dictionary(column.type):
        cut = _as_bytes(column.dictionary)
        return pa.DictionaryArray.from_arrays(column.indices, cut).dictionary_decode()
    if pa.types.is_integer(column.type) or pa.types.is_null(column.type):
        return column.cast(pa.string()).cast(pa.large_binary())
    return pc.binary_slice(column.cast(pa.large_binary()), 0, _CUT)
