"""Reading caption tables: every row is either yielded or counted."""

import gzip
import json
from collections import Counter
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ovseg.data.build import lines, tables
from ovseg.data.build.columns import Layout
from ovseg.data.build.lines import TablePart, line_blocks
from ovseg.data.build.request import load_request
from ovseg.data.build.sources import Columns, resolve_source
from ovseg.data.build.tables import check_columns, read_table, table_parts
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


@pytest.mark.parametrize("last", ["", "2024-05-01", "17"])
def test_an_unused_column_may_hold_anything_in_the_last_row(tmp_path: Path, last: str) -> None:
    """pyarrow would guess its type from the first 16 MiB."""
    path = tmp_path / "rows.csv"
    words = "a dog " + "on a sofa " * 30
    usual = [f"http://a/{n}.jpg,{words},{last}\n" for n in range(59_999)]
    path.write_text("url,caption,note\n" + "".join(usual) + "http://a/z.jpg,a cat,free words\n")
    assert path.stat().st_size > 16 << 20
    rows, tally = _read(path, Layout("csv", "url", ("caption",), header=True))
    assert (len(rows), tally) == (60_000, Tally(read=60_000))
    assert rows[-1] == ("http://a/z.jpg", "a cat")


@pytest.mark.parametrize("format", ["tsv", "csv", "jsonl"])
@pytest.mark.parametrize("header", [True, False])
def test_a_byte_order_mark_is_no_part_of_the_first_value(
    tmp_path: Path, format: str, header: bool
) -> None:
    separator = "," if format == "csv" else "\t"
    text = f"http://a{separator}a dog\n"
    if format == "jsonl":
        text = '{"url": "http://a", "caption": "a dog"}\n'
    elif header:
        text = f"url{separator}caption\n{text}"
    path = tmp_path / f"rows.{format}"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    named = header or format == "jsonl"
    layout = Layout(format, "url" if named else 0, ("caption" if named else 1,), header)
    assert _read(path, layout) == ([("http://a", "a dog")], Tally(read=1))
    path.write_bytes(text.encode("utf-16"))
    with pytest.raises(DataError, match="is UTF-16: save it as UTF-8"):
        check_columns(str(path), layout)


def test_tsv_with_every_field_quoted(tmp_path: Path) -> None:
    path = tmp_path / "rows.tsv"
    path.write_bytes(
        b'"url"\t"caption"\r\n"http://a"\t"a ""big"" dog"\r\n"http://b"\t"it says ""no"""\r\n"http://c"\t""\r\n'
    )
    rows, tally = _read(path, Layout("tsv", "url", ("caption",), header=True))
    assert rows == [("http://a", 'a "big" dog'), ("http://b", 'it says "no"')]
    assert tally == Tally(3, Counter({"no caption": 1}))
    path.write_text('http://a\t"a dog"\nhttp://b\t"a cat"\n')  # quoted captions, as they are
    assert _read(path, CC12M)[0] == [("http://a", '"a dog"'), ("http://b", '"a cat"')]


@pytest.mark.parametrize("format", ["tsv", "csv"])
def test_a_table_without_a_header_says_what_to_give(tmp_path: Path, format: str) -> None:
    separator = "," if format == "csv" else "\t"
    path = tmp_path / f"rows.{format}"
    path.write_text(f"a dog{separator}http://a/1.jpg\na cat{separator}http://a/2.jpg\n")
    with pytest.raises(UsageError, match="its first line is a row") as told:
        _read(path, Layout(format, "url", ("caption",), header=True))
    changes = [word.strip("'") for word in str(told.value).split("--set ")[1:]]
    changes = [change.strip().strip("'") for change in changes]
    assert changes == [
        "source.header=false",
        "source.url_column=1",
        "source.caption_columns=[0]",
    ]
    recipe = load_request(path, changes)
    source = resolve_source(
        recipe.source.name,
        "",
        Columns("", recipe.source.url_column, recipe.source.caption_columns, False),
        None,
    )
    assert source.layout is not None
    assert _read(path, source.layout)[0] == [
        ("http://a/1.jpg", "a dog"),
        ("http://a/2.jpg", "a cat"),
    ]


@pytest.mark.parametrize("format", ["tsv", "csv", "parquet"])
def test_a_name_twice_is_refused_only_where_it_is_used(tmp_path: Path, format: str) -> None:
    path = tmp_path / f"rows.{format}"
    separator = "," if format == "csv" else "\t"
    for names in (["url", "caption", "note", "note"], ["url", "caption", "caption", "note"]):
        values = ["http://a", "a dog", "x", "y"]
        if format == "parquet":
            arrays = [pa.array([value]) for value in values]
            pq.write_table(pa.Table.from_arrays(arrays, names=names), path)
        else:
            path.write_text("".join(separator.join(row) + "\n" for row in (names, values)))
        layout = Layout(format, "url", ("caption",), header=True)
        if names.count("caption") == 1:
            assert _read(path, layout)[0] == [("http://a", "a dog")]
        else:
            with pytest.raises(UsageError, match=r"2 columns named 'caption' \(numbers 1, 2\)"):
                _read(path, layout)
    if format != "parquet":
        assert _read(path, Layout(format, "0", ("2",), header=True))[0] == [("http://a", "x")]


@pytest.mark.parametrize("size", [1, 1 << 20])
def test_a_json_array_is_read_as_its_lines_would_be(tmp_path: Path, size: int) -> None:
    rows = [{"url": f"http://{n}", "caption": "a dog"} for n in range(5)]
    path = tmp_path / "rows.json"
    layout = Layout("jsonl", "url", ("caption",), header=True)
    for indent in (None, 1):
        path.write_text(json.dumps([*rows, 7], indent=indent))
        assert table_parts(str(path), layout, size) == [TablePart()]
        found, tally = _read(path, layout)
        assert found == [(f"http://{n}", "a dog") for n in range(5)]
        assert tally.dropped == {"not a JSON object with the named columns": 1}
    assert resolve_source(str(path), "", Columns(), None).layout == layout
    path.write_text('[1, 2]\n{"url": "u", "caption": "a cat"}\n')  # lines, the first no object
    assert _read(path, layout)[0] == [("u", "a cat")]


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_a_list_of_captions_gives_a_row_for_each(tmp_path: Path, format: str) -> None:
    rows = [("a.jpg", ["a dog", "a cat"]), ("b.jpg", []), ("c.jpg", ["a bus", None])]
    path = tmp_path / f"rows.{format}"
    if format == "jsonl":
        lines = [json.dumps({"url": url, "caption": texts}) for url, texts in rows]
        path.write_text("\n".join([*lines, '{"url": "d.jpg", "caption": [7]}']))
    else:
        frame = pl.DataFrame(
            rows, schema={"url": pl.String, "caption": pl.List(pl.String)}, orient="row"
        )
        pq.write_table(frame.to_arrow(), path)
    found, tally = _read(path, Layout(format, "url", ("caption",), header=True))
    assert found == [("a.jpg", "a dog"), ("a.jpg", "a cat"), ("c.jpg", "a bus")]
    assert tally.dropped["no caption"] == 2
    assert tally.dropped["not a JSON object with the named columns"] == (format == "jsonl")


def test_parquet_that_holds_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    rows = {"image": [{"bytes": b"x", "path": "a.jpg"}], "caption": ["a dog"]}
    pq.write_table(pa.table(rows), path)
    with pytest.raises(
        UsageError, match="'image' must hold addresses or file names, it holds struct"
    ):
        _read(path, Layout("parquet", "image", ("caption",), header=True))


@pytest.mark.parametrize(
    ("lines", "kept", "swallowed"),
    [
        (['b.jpg,"dog', "c.jpg,cat", "d.jpg,bird"], ["a.jpg"], 3),  # to the end of the file
        (['b.jpg,"dog', "c.jpg,cat", 'd.jpg,"bird"', "e.jpg,x"], ["a.jpg", "e.jpg"], 3),
        (['b.jpg,"dog', 'c.jpg,"cat, asleep"', "d.jpg,x"], ["a.jpg", "d.jpg"], 2),
        (
            ['b.jpg,"a dog, running', 'and b.jpg, a photo"', "d.jpg,x"],
            ["a.jpg", "b.jpg", "d.jpg"],
            0,
        ),
    ],
)
def test_rows_that_an_unbalanced_quote_swallows_are_counted(
    tmp_path: Path, lines: list[str], kept: list[str], swallowed: int
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(["url,caption", "a.jpg,a dog", *lines]) + "\n")
    rows, tally = _read(path, Layout("csv", "url", ("caption",), header=True))
    assert [url for url, _ in rows] == kept
    assert tally.dropped["swallowed by an unbalanced quote"] == swallowed


def test_a_quote_that_swallows_more_than_a_block_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "BLOCK", 1 << 20)
    path = tmp_path / "rows.csv"
    path.write_text('url,caption\na.jpg,a dog\nb.jpg,"a cat\n' + "c.jpg,a bus\n" * 300_000)
    with pytest.raises(DataError, match="a value runs over 1 MiB: is a quote left open"):
        _read(path, Layout("csv", "url", ("caption",), header=True))
