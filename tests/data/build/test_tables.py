"""Reading caption tables: every row is either yielded or counted."""

import gzip
import json
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from ovseg.data.build import lines
from ovseg.data.build.lines import TablePart, line_blocks
from ovseg.data.build.tables import Layout, read_table, table_parts
from ovseg.data.dataset.plan import Tally
from ovseg.errors import DataError, UsageError

CC12M = Layout("tsv", 0, (1,))
HOSTILE = [
    b"http://a\tone dog",
    b"http://b\tone\0cat",
    b"no tab here",
    b"http://c\ttoo\tmany",
    b"http://d\t\xff\xfe",
    b"http://e\t",
    b"\tno address",
    b"http://f\t" + b"x" * 1_000_000,
    b"http://g\t" + b"y" * 2_000_000,
    b'http://h\tan unclosed "quote\r',
    "http://i\tcafé ü".encode(),
]


def _read(path: Path, layout: Layout) -> tuple[list[tuple[str, str]], Tally]:
    tally = Tally()
    chunks = list(read_table(str(path), layout, tally))
    return [row for chunk in chunks for row in chunk.select("locator", "caption").rows()], tally


def test_malformed_rows_are_counted_and_the_rest_survives(tmp_path: Path) -> None:
    path = tmp_path / "rows.tsv"
    path.write_bytes(b"\n".join(HOSTILE))
    rows, tally = _read(path, CC12M)
    assert rows == [
        ("http://a", "one dog"),
        ("http://h", 'an unclosed "quote'),
        ("http://i", "café ü"),
    ]
    assert tally.read == len(HOSTILE)
    assert tally.dropped == {
        "NUL character": 1,
        "wrong number of columns": 2,
        "not UTF-8": 1,
        "no caption": 1,
        "no image": 1,
        "caption over 10000 bytes": 1,
        "line over 1048576 bytes": 1,
    }


def test_small_blocks_give_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.tsv"
    path.write_bytes(b"\n".join(HOSTILE))
    whole = _read(path, CC12M)
    monkeypatch.setattr(lines.line_blocks, "__defaults__", (777,))
    assert _read(path, CC12M) == whole


def test_a_line_longer_than_several_blocks_is_skipped_once() -> None:
    import io

    tally = Tally()
    data = b"a\n" + b"z" * 5_000_000 + b"\nb\n"
    assert b"".join(line_blocks(io.BytesIO(data), tally, 1 << 18)) == b"a\nb\n"
    assert tally.dropped.total() == 1


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet", "tsv", "tsv.gz"])
def test_the_same_rows_from_every_format(tmp_path: Path, format: str) -> None:
    rows = [("http://a/1.jpg", "a dog, running"), ("http://a/2.jpg", 'a "big" café')]
    frame = pl.DataFrame(rows, schema=["link", "text"], orient="row")
    path = tmp_path / f"rows.{format}"
    if format == "csv":
        frame.write_csv(path)
    elif format == "jsonl":
        frame.write_ndjson(path)
    elif format == "parquet":
        pq.write_table(frame.to_arrow(), path)
    else:
        text = "link\ttext\n" + "".join(f"{link}\t{text}\n" for link, text in rows)
        path.write_bytes(gzip.compress(text.encode()) if format == "tsv.gz" else text.encode())
    layout = Layout(format.removesuffix(".gz"), "link", ("text",), header=True)
    assert _read(path, layout) == (rows, Tally(read=2))


def test_malformed_json_lines_are_counted(tmp_path: Path) -> None:
    good = json.dumps({"url": "http://a", "caption": "a\ndog"})
    lines = [good, "{", '{"url": 3, "caption": "x"}', "[]", '{"url": "u", "caption": "\\ud800"}']
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines))
    rows, tally = _read(path, Layout("jsonl", "url", ("caption",)))
    assert rows == [("http://a", "a dog")]
    assert (tally.read, tally.dropped.total()) == (5, 4)


def test_csv_rows_with_extra_fields_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('url,caption\nhttp://a,"two\nlines"\nhttp://b,x,y\n')
    rows, tally = _read(path, Layout("csv", "url", ("caption",), header=True))
    assert rows == [("http://a", "two lines")]
    assert tally.dropped == {"wrong number of columns": 1}


def test_form_encoding_is_undone_and_captions_are_joined(tmp_path: Path) -> None:
    path = tmp_path / "yfcc.tsv"
    path.write_text("1\ta+dog\tin%20a+park\thttp://a\n2\t\tonly+this\thttp://b\n")
    rows, _ = _read(path, Layout("tsv", 3, (1, 2), encoded=True))
    assert rows == [("http://a", "a dog in a park"), ("http://b", "only this")]


def test_errors_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        _read(tmp_path / "absent.tsv", CC12M)
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"no parquet")
    with pytest.raises(DataError, match="no parquet file"):
        _read(path, Layout("parquet", "url", ("caption",)))
    pq.write_table(pl.DataFrame({"a": ["x"]}).to_arrow(), path)
    with pytest.raises(UsageError, match=r"source\.url_column"):
        _read(path, Layout("parquet", "url", ("caption",)))


@pytest.mark.parametrize("size", [1, 7, 100_000, 1_500_000, 10_000_000])
def test_parts_together_are_the_whole(tmp_path: Path, size: int) -> None:
    path = tmp_path / "rows.tsv"
    path.write_bytes(b"\n".join(HOSTILE if size > 7 else HOSTILE[:5]))
    whole, tally = _read(path, CC12M)
    parts = table_parts(str(path), CC12M, size)
    assert (parts[0].start, parts[-1].end) == (0, path.stat().st_size)
    together = Tally()
    rows = [
        row
        for part in parts
        for chunk in read_table(str(path), CC12M, together, part)
        for row in chunk.select("locator", "caption").rows()
    ]
    assert (rows, together) == (whole, tally)


def test_parquet_parts_are_row_groups(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    frame = pl.DataFrame({"url": [f"u{n}" for n in range(10)], "caption": ["a dog"] * 10})
    pq.write_table(frame.to_arrow(), path, row_group_size=4)
    layout = Layout("parquet", "url", ("caption",))
    parts = table_parts(str(path), layout)
    assert parts == [TablePart(0, 1), TablePart(1, 2), TablePart(2, 3)]
    rows = [len(c) for part in parts for c in read_table(str(path), layout, Tally(), part)]
    assert rows == [4, 4, 2]
