"""Tables that are damaged or made to harm: rows are counted, files refused in one line."""

import bz2
import gzip
import lzma
import resource
import sys
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ovseg.data.build.collections import read_coco, read_redcaps
from ovseg.data.build.columns import Layout
from ovseg.data.build.sources import Columns, resolve_source
from ovseg.data.build.tables import check_columns, read_table, table_parts
from ovseg.data.dataset.plan import Tally
from ovseg.errors import DataError, UsageError

TSV = Layout("tsv", 1, (0,))
CSV = Layout("csv", "url", ("caption",), header=True)
JSONL = Layout("jsonl", "url", ("caption",))
PARQUET = Layout("parquet", "url", ("caption",), header=True)
PACK: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
}


def _read(path: Path, layout: Layout) -> tuple[list[tuple[str, str]], Counter[str]]:
    tally = Tally()
    frames = list(read_table(str(path), layout, tally))
    rows = [row for frame in frames for row in frame.select("locator", "caption").iter_rows()]
    assert tally.read == len(rows) + tally.dropped.total()
    return rows, tally.dropped


@pytest.mark.parametrize(
    ("name", "layout", "content"),
    [
        ("a.tsv", TSV, b"a cat\thttp://x/1\na dog\xff\textra\thttp://x/2\n"),
        ("a.tsv", TSV, b"a cat\thttp://x/1\na dog\rextra\xff\t\thttp://x/2\n"),
        ("a.csv", CSV, b"url,caption\nhttp://x/1,a cat\nhttp://x/2,a dog\xff,extra\n"),
        ("a.csv", CSV, b'url,caption\nhttp://x/1,a cat\n"http://x/\xff,a,b\n'),
        (
            "a.jsonl",
            JSONL,
            b'{"url":"http://x/1","caption":"a cat"}\n{"url":"\\ud800","caption":"a"}',
        ),
        ("a.jsonl", JSONL, b'{"url":"http://x/1","caption":"a cat"}\n' + b"[" * 90_000),
        ("a.jsonl", JSONL, b'{"url":"http://x/1","caption":"a cat"}\n{"url":' + b"1" * 5000 + b"}"),
        (
            "a.json",
            JSONL,
            b'[{"url":"http://x/1","caption":"a cat"},{"url":"\\ud800","caption":"a"}]',
        ),
    ],
)
def test_a_bad_row_is_counted(tmp_path: Path, name: str, layout: Layout, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    rows, dropped = _read(path, layout)
    assert rows == [("http://x/1", "a cat")]
    assert dropped.total() >= 1


def test_text_that_is_not_utf_8_is_counted_as_such(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(
        'url,caption\nhttp://x/1,"café,\nlatte"\nhttp://x/2,caf\xe9\n'.encode("latin-1")
    )
    assert _read(path, CSV) == ([], {"not UTF-8": 2})
    path.write_bytes("url,caption\nhttp://x/1,café 😀\nhttp://x/\xff,a\n".encode())
    assert _read(path, CSV)[0] == [("http://x/1", "café 😀"), ("http://x/ÿ", "a")]


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize(("suffix", "layout"), [("tsv", TSV), ("csv", CSV), ("jsonl", JSONL)])
def test_a_damaged_packed_file_is_one_line(
    tmp_path: Path, kind: str, suffix: str, layout: Layout
) -> None:
    plain = b"url,caption\n" + b"".join(b"http://x/%d,a cat %d\n" % (n, n * n) for n in range(9000))
    packed = PACK[kind](plain)
    middle = len(packed) // 2
    for damaged in (
        packed[:middle],
        packed[:-3],
        packed[:middle] + bytes(200) + packed[middle + 200 :],
        packed[:4],
        b"no such thing",
    ):
        path = tmp_path / f"a.{suffix}.{kind}"
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"a\.\w+\.\w+ (is damaged after|cannot be opened)"):
            check_columns(str(path), layout)
            _read(path, layout)


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize(
    ("suffix", "layout", "row"),
    [
        ("tsv", TSV, b"a" * 9000 + b"\thttp://x/1\n"),
        ("csv", CSV, b"url,caption\n" + b"a" * 9000 + b",http://x/1\n"),
        ("jsonl", JSONL, b'{"url": "http://x/1", "caption": "%s"}\n' % (b"a" * 9000)),
        ("json", JSONL, b"[" + b"[],\n" * 9000),
    ],
)
def test_a_small_file_that_unpacks_to_much(
    tmp_path: Path, kind: str, suffix: str, layout: Layout, row: bytes
) -> None:
    path = tmp_path / f"a.{suffix}.{kind}"
    path.write_bytes(PACK[kind](row * ((1 << 20) // len(row))) * 70)  # they unpack as one
    before = _peak()
    with pytest.raises(DataError, match=r"unpacks to more than|too much for memory"):
        _read(path, layout)
    assert _peak() - before < 400 << 20


def _peak() -> int:
    """The most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


@pytest.mark.parametrize(("read", "key"), [(read_coco, "images"), (read_redcaps, "annotations")])
def test_a_document_that_unpacks_to_much(tmp_path: Path, read: Any, key: str) -> None:
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(b'{"%s": [' % key.encode() + b"[]," * (20 << 20) + b"[]]}"))
    before = _peak()
    with pytest.raises(DataError, match=r"above .* MiB, too much for memory: unpack it first"):
        list(read(str(path), Tally(), False))
    assert _peak() - before < 400 << 20


def test_entries_of_documents_are_counted_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(
        '{"images": [{"id": 1, "coco_url": "http://x/1"}, {"id": []}, 3, {"coco_url": "u"}],'
        '"annotations": [{"image_id": 1, "caption": "a cat"}, {"image_id": [], "caption": "b"}, 3,'
        ' {"image_id": 9, "caption": "c"}, {"image_id": 1, "caption": "\\ud800"}, {"image_id": 1}]}'
    )
    tally = Tally()
    (frame,) = read_coco(str(path), tally, False)
    assert frame["caption"].to_list() == ["a cat"]
    assert tally.dropped == {
        "an entry without an image or a caption": 3,
        "no image": 1,
        "not UTF-8": 1,
    }
    for content in (b"[]", b"{}", b'{"images": 3, "annotations": 3}', b"[" * 100_000, b"\xff"):
        path.write_bytes(content)
        with pytest.raises(DataError):
            list(read_coco(str(path), Tally(), False))
        with pytest.raises(DataError):
            list(read_redcaps(str(path), Tally(), False))


def test_a_damaged_file_of_many_is_counted(tmp_path: Path) -> None:
    good = '{"annotations": [{"url": "http://x/1", "caption": "a cat"}, {"url": "u"}, 3]}'
    (tmp_path / "a.json").write_text(good)
    (tmp_path / "b.json").write_text(good[:30])
    tally = Tally()
    (frame,) = read_redcaps(str(tmp_path), tally, False)
    assert frame["caption"].to_list() == ["a cat"]
    assert tally.dropped == {
        "an entry without an image or a caption": 2,
        "damaged annotation file": 1,
    }


def _parquet(path: Path, **columns: pa.Array) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


URLS = pa.array(["http://x/1", "http://x/2", "http://x/3"])


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[["a"]], [], None]),
        pa.array([{"a": 1}] * 3),
        pa.array([[("a", 1)]] * 3, pa.map_(pa.string(), pa.int8())),
        pa.array([timedelta(1)] * 3),
        pa.array([1.5, None, 2.5]),
        pa.array([True, False, None]),
    ],
)
def test_columns_of_other_kinds_are_refused(tmp_path: Path, column: pa.Array) -> None:
    path = _parquet(tmp_path / "a.parquet", url=URLS, caption=column)
    with pytest.raises(UsageError, match="'caption' must hold text or lists of text, it holds"):
        _read(path, PARQUET)
    path = _parquet(tmp_path / "b.parquet", url=pa.array([["a"]] * 3), caption=URLS)
    with pytest.raises(UsageError, match="'url' must hold addresses or file names, it holds"):
        _read(path, PARQUET)


@pytest.mark.parametrize(
    ("column", "captions", "dropped"),
    [
        (pa.array([b"a cat", b"\xff", None], pa.binary()), ["a cat"], 2),
        (pa.array([["a", "b"], [], None]), ["a", "b"], 2),
        (pa.array([[b"a", b"\xff", None], [b""], [b"c"]], pa.list_(pa.binary())), ["a", "c"], 3),
        (pa.array(["a", "a", "b"]).dictionary_encode(), ["a", "a", "b"], 0),
        (pa.array(["a", None, "b"], pa.large_string()), ["a", "b"], 1),
        (pa.array([7, 8, None]), ["7", "8"], 1),
        (pa.nulls(3), [], 3),
        (pa.array(["x" * 20_000, "a", "b"]), ["a", "b"], 1),
    ],
)
def test_what_columns_may_hold(
    tmp_path: Path, column: pa.Array, captions: list[str], dropped: int
) -> None:
    path = _parquet(tmp_path / "a.parquet", url=URLS, caption=column)
    rows, counted = _read(path, PARQUET)
    assert [caption for _, caption in rows] == captions
    assert counted.total() == dropped


@pytest.mark.parametrize("encoding", ["PLAIN", "DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"])
@pytest.mark.parametrize("listed", [False, True])
def test_every_way_to_store_text_is_read(tmp_path: Path, encoding: str, listed: bool) -> None:
    captions = [f"a cat {n}" for n in range(3)]
    column = pa.array([[caption] for caption in captions] if listed else captions)
    path = tmp_path / "a.parquet"
    leaf = "caption.list.element" if listed else "caption"
    encodings = {"url": encoding, leaf: encoding}
    table = pa.table({"url": URLS, "caption": column})
    pq.write_table(table, path, use_dictionary=False, column_encoding=encodings)
    assert [caption for _, caption in _read(path, PARQUET)[0]] == captions


def test_bytes_in_a_column_of_text_are_counted(tmp_path: Path) -> None:
    """Arrow does not look, and polars would end the process's thread with a panic."""
    bad = pa.array([b"a cat", b"caf\xe9", b"\xff\xfe"], pa.binary())
    text = pa.StringArray.from_buffers(3, *bad.buffers()[1:])
    path = _parquet(tmp_path / "a.parquet", url=URLS, caption=text)
    assert _read(path, PARQUET) == ([("http://x/1", "a cat")], {"not UTF-8": 2})


def test_columns_of_one_name_are_told_apart_by_number(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table(
        [URLS, pa.array(["a", "b", "c"]), pa.array(["d", "e", "f"])], ["url", "t", "t"]
    )
    pq.write_table(table, path)
    with pytest.raises(UsageError, match=r"2 columns named 't' \(numbers 1, 2\)"):
        check_columns(str(path), Layout("parquet", "url", ("t",)))
    source = resolve_source(str(path), "", Columns(locator="0", captions=("2",)), None)
    (frame,) = source.chunks(Tally())
    assert frame["caption"].to_list() == ["d", "e", "f"]
    both = Layout("parquet", "0", ("2", "1"))
    assert [caption for _, caption in _read(path, both)[0]] == ["d a", "e b", "f c"]


def test_damaged_pages_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    captions = pa.array([f"a cat {n} on a sofa" for n in range(2000)])
    urls = pa.array([f"http://x/{n}" for n in range(2000)])
    pq.write_table(pa.table({"url": urls, "caption": captions}), path, compression="gzip")
    sound = path.read_bytes()
    for place in range(50, len(sound) - 400, 997):
        path.write_bytes(sound[:place] + b"\xff" * 60 + sound[place + 60 :])
        with pytest.raises(DataError, match=r"a\.parquet"):
            _read(path, PARQUET)


def test_one_long_text_that_stands_for_many(tmp_path: Path) -> None:
    """A file of kilobytes, a table of gigabytes."""
    long = pa.DictionaryArray.from_arrays(
        pa.array([0] * 60_000, pa.int32()), pa.array(["x" * (1 << 20)])
    )
    urls = pa.DictionaryArray.from_arrays(
        pa.array([0] * 60_000, pa.int32()), pa.array(["http://x"])
    )
    path = _parquet(tmp_path / "a.parquet", url=urls, caption=long)
    assert path.stat().st_size < 2 << 20
    before = _peak()
    assert _read(path, PARQUET) == ([], {"caption over 10000 bytes": 60_000})
    assert _peak() - before < 700 << 20


def test_a_page_that_unpacks_to_much(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    long = pa.array(["x" * (300 << 20)])
    pq.write_table(pa.table({"url": URLS[:1], "caption": long}), path, compression="zstd")
    assert path.stat().st_size < 100_000
    with pytest.raises(DataError, match=r"a\.parquet is damaged \(it unpacks from [\d,]+ bytes to"):
        _read(path, PARQUET)


def test_parquet_that_is_packed_again(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet.gz"
    path.write_bytes(gzip.compress(b"PAR1"))
    with pytest.raises(UsageError, match="unpack the file first"):
        table_parts(str(path), PARQUET)


def test_superscripts_are_no_number_of_a_column(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("url,caption\nhttp://x/1,a cat\n")
    with pytest.raises(UsageError, match="has no column '²'"):
        check_columns(str(path), Layout("csv", "url", ("²",), header=True))
