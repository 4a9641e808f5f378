"""Rows of text tables: TSV, CSV, JSONL and parquet, from any fsspec address, in bounded memory.

TSV and JSONL come through `lines`, which a line of any length cannot upset; pyarrow's parser has
the rest. Quoted CSV goes to pyarrow directly.
"""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import unquote_plus

import fsspec
import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

from ovseg.data.build.captions import clean
from ovseg.data.build.lines import BLOCK, WHOLE, TablePart, line_blocks, open_binary, stretch
from ovseg.data.dataset.plan import Tally
from ovseg.errors import DataError, UsageError

PART = 64 << 20  # bytes that one worker reads at a time


@dataclass(frozen=True)
class Layout:
    """How a table is laid out; columns are header names, or 0-based numbers where there is none.

    `captions` are joined with a space. `encoded` undoes form encoding (`%20`, `+`), as in YFCC.
    """

    format: str  # "tsv", "csv", "jsonl" or "parquet"
    locator: str | int
    captions: tuple[str | int, ...]
    header: bool = False
    encoded: bool = False


def table_parts(address: str, layout: Layout, size: int = PART) -> list[TablePart]:
    """The table in parts of about `size` bytes; one part where it cannot be entered midway."""
    filesystem, path = fsspec.core.url_to_fs(address)
    if layout.format == "parquet":
        with _open_parquet(address) as table:
            return [TablePart(group, group + 1) for group in range(table.metadata.num_row_groups)]
    packed = fsspec.utils.infer_compression(address) is not None
    length = None if packed else filesystem.info(path).get("size")
    if layout.format not in ("tsv", "jsonl") or not length:
        return [TablePart()]
    return [TablePart(start, min(start + size, length)) for start in range(0, length, size)]


def read_table(
    address: str, layout: Layout, tally: Tally, part: TablePart = WHOLE
) -> Iterator[pl.DataFrame]:
    """Chunks (see `captions.CHUNK_SCHEMA`) of a table; unusable rows are counted in `tally`."""
    readers = {"tsv": _read_tsv, "csv": _read_csv, "jsonl": _read_jsonl, "parquet": _read_parquet}
    if layout.format not in readers:
        raise UsageError(f"unknown table format {layout.format!r}: one of {', '.join(readers)}")
    for frame in readers[layout.format](address, layout, tally, part):
        yield clean(_decode_forms(frame) if layout.encoded else frame, tally)


def _read_tsv(
    address: str, layout: Layout, tally: Tally, part: TablePart
) -> Iterator[pl.DataFrame]:
    with open_binary(address) as stream:
        names = _tsv_columns(stream.read(1 << 20), layout, address)
    skip = int(layout.header and part.start == 0)
    with open_binary(address) as stream:
        for block in line_blocks(stretch(stream, part), tally):
            if table := _parse_tsv(block, names, skip, tally):
                yield _pick(pl.DataFrame(pl.from_arrow(table)), layout, address)
            skip = 0


def _tsv_columns(block: bytes, layout: Layout, address: str) -> list[str]:
    """Column names: the header's, or numbers, as many as most of the first lines have."""
    lines = block.split(b"\n")[:200]
    if layout.header:
        return lines[0].decode("utf-8", "replace").strip("\r").split("\t")
    widths = Counter(line.count(b"\t") + 1 for line in lines if line.strip())
    if not widths:
        raise DataError(f"{address} holds no rows")
    return [str(number) for number in range(widths.most_common(1)[0][0])]


def _parse_tsv(block: bytes, names: list[str], skip: int, tally: Tally) -> pa.Table | None:
    def reject(row: pa_csv.InvalidRow) -> str:
        del row
        tally.drop("wrong number of columns")
        return "skip"

    try:
        return pa_csv.read_csv(
            pa.BufferReader(block),
            read_options=pa_csv.ReadOptions(
                column_names=names, skip_rows=skip, block_size=len(block) + 1, use_threads=False
            ),
            parse_options=pa_csv.ParseOptions(
                delimiter="\t", quote_char=False, invalid_row_handler=reject
            ),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.binary()), check_utf8=False
            ),
        )
    except pa.ArrowInvalid as error:
        if "Empty CSV" in str(error):
            return None
        raise


def _pick(frame: pl.DataFrame, layout: Layout, address: str) -> pl.DataFrame:
    """The two columns a chunk is made of, still as bytes where the source had bytes."""
    wanted = [str(layout.locator), *map(str, layout.captions)]
    if absent := [name for name in wanted if name not in frame.columns]:
        raise UsageError(
            f"{address} has no column {absent[0]!r}; it has {', '.join(frame.columns[:30])}: "
            "choose with source.url_column and source.caption_columns"
        )
    captions = [pl.col(name) for name in wanted[1:]]
    joined = captions[0]
    if len(captions) > 1:
        parts = [part.cast(pl.String, strict=False) for part in captions]
        joined = pl.concat_str(parts, separator=" ", ignore_nulls=True)
    return frame.select(locator=pl.col(wanted[0]), caption=joined)


def _decode_forms(frame: pl.DataFrame) -> pl.DataFrame:
    decoded = pl.col("locator", "caption").cast(pl.String, strict=False)
    return frame.with_columns(decoded.map_elements(unquote_plus, return_dtype=pl.String))


def _read_csv(
    address: str, layout: Layout, tally: Tally, part: TablePart
) -> Iterator[pl.DataFrame]:
    del part  # quoted line breaks: nobody can tell midway whether a row begins

    def reject(row: pa_csv.InvalidRow) -> str:
        del row
        tally.drop("wrong number of columns")
        return "skip"

    with open_binary(address) as stream:
        try:
            batches = pa_csv.open_csv(
                stream,
                read_options=pa_csv.ReadOptions(
                    block_size=BLOCK, use_threads=False, autogenerate_column_names=not layout.header
                ),
                parse_options=pa_csv.ParseOptions(
                    newlines_in_values=True, invalid_row_handler=reject
                ),
                convert_options=pa_csv.ConvertOptions(
                    check_utf8=False,
                    include_columns=None,
                    column_types=_binary_columns(layout),
                ),
            )
            for batch in batches:
                frame = pl.DataFrame(pl.from_arrow(pa.Table.from_batches([batch])))
                yield _pick(_number_columns(frame, layout), layout, address)
        except pa.ArrowInvalid as error:
            raise DataError(f"{address} cannot be read as CSV: {error}") from error


def _binary_columns(layout: Layout) -> dict[str, pa.DataType]:
    columns = (layout.locator, *layout.captions)
    # pyarrow calls the columns of a headerless file f0, f1, ...
    names = [str(name) if layout.header else f"f{name}" for name in columns]
    return dict.fromkeys(names, pa.binary())


def _number_columns(frame: pl.DataFrame, layout: Layout) -> pl.DataFrame:
    return frame if layout.header else frame.rename(lambda name: name.removeprefix("f"))


def _read_jsonl(
    address: str, layout: Layout, tally: Tally, part: TablePart
) -> Iterator[pl.DataFrame]:
    with open_binary(address) as stream:
        for block in line_blocks(stretch(stream, part), tally):
            rows = []
            for line in block.split(b"\n"):
                if not line.strip():
                    continue
                try:
                    rows.append(_json_row(line, layout))
                except (ValueError, KeyError, TypeError, RecursionError):
                    tally.drop("not a JSON object with the named columns")
            schema = {"locator": pl.String, "caption": pl.String}
            yield pl.DataFrame(rows, schema=schema, orient="row")


def _json_row(line: bytes, layout: Layout) -> tuple[str | None, str | None]:
    row = json.loads(line)
    captions = [row[str(name)] for name in layout.captions]
    texts = [text for text in captions if text is not None]
    locator = row[str(layout.locator)]
    if not isinstance(locator, str | None) or not all(isinstance(text, str) for text in texts):
        raise TypeError("columns must hold text")
    # A lone surrogate from "\\ud800" is no text: what cannot be encoded counts as malformed.
    joined = " ".join(texts).encode("utf-8").decode("utf-8") if texts else None
    return locator, joined


def _read_parquet(
    address: str, layout: Layout, tally: Tally, part: TablePart
) -> Iterator[pl.DataFrame]:
    del tally  # a parquet file is well-formed or refused as a whole
    with _open_parquet(address) as table:
        wanted = [str(layout.locator), *map(str, layout.captions)]
        if not set(wanted) <= set(table.schema_arrow.names):
            _pick(pl.DataFrame({name: [] for name in table.schema_arrow.names}), layout, address)
        end = table.metadata.num_row_groups if part.end is None else part.end
        groups = list(range(part.start, end))
        for batch in table.iter_batches(1 << 16, row_groups=groups, columns=wanted):
            yield _pick(pl.DataFrame(pl.from_arrow(batch)), layout, address)


@contextmanager
def _open_parquet(address: str) -> Iterator[pa_parquet.ParquetFile]:
    with open_binary(address) as stream:
        try:
            table = pa_parquet.ParquetFile(stream)
        except pa.ArrowInvalid as error:
            raise DataError(f"{address} is no parquet file: {error}") from error
        yield table
