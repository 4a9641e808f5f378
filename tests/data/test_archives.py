"""Tar files made to harm: no size is followed before it was looked at."""

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from ovseg.data.build.collections import read_archives
from ovseg.data.dataset.plan import Tally
from ovseg.data.dataset.webdataset import expand, read_shard
from ovseg.errors import DataError, UsageError
from tests.data.pictures import picture


def _header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A member's header with a right checksum, whatever size it claims."""
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT)


def _member(name: str, data: bytes) -> bytes:
    return _header(name, len(data)) + data + bytes(-len(data) % 512)


def _pax(**headers: str) -> bytes:
    """A further header, that says something else of the member after it."""
    records = b""
    for key, value in headers.items():
        length = len(key) + len(value) + 3
        length += len(str(length + len(str(length))))
        records += f"{length} {key}={value}\n".encode()
    return _header("pax", len(records), tarfile.XHDTYPE) + records + bytes(-len(records) % 512)


GOOD = _member("a.jpg", picture(0)) + _member("a.txt", b"a dog")
AFTER = _member("c.jpg", picture(1)) + _member("c.txt", b"a cat")
HARM = {
    "a size of 2^62": _header("b.jpg", 1 << 62),
    "a size of 2^88 - 1": _header("b.jpg", (1 << 88) - 1),
    "a size below zero": _header("b.jpg", -1),
    "a size beyond the file": _header("b.jpg", 1 << 33),
    "a long name of gigabytes": _header("././@LongLink", 6 << 30, tarfile.GNUTYPE_LONGNAME),
    "a long link of gigabytes": _header("././@LongLink", 6 << 30, tarfile.GNUTYPE_LONGLINK),
    "further headers of gigabytes": _header("pax", 6 << 30, tarfile.XHDTYPE),
    "headers for all, of gigabytes": _header("pax", 6 << 30, tarfile.XGLTYPE),
    "digits that take for ever": _header("pax", 1 << 20, tarfile.XHDTYPE) + b"1" * (1 << 20),
    "a size in a further header": _pax(size="9" * 20) + _header("b.jpg", 5),
    "headers within headers": _pax(comment="x") * 3000,
    "a sparse file of many pieces": _pax(**{"GNU.sparse.major": "1", "GNU.sparse.minor": "0"})
    + _header("b.jpg", 512)
    + b"9" * 30
    + b"\n"
    + bytes(481),
    "a header that is none": b"\xff" * 512,
}


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.timeout(20)
def test_what_a_header_claims_is_looked_at_first(tmp_path: Path, harm: str, packed: bool) -> None:
    content = GOOD + HARM[harm] + AFTER + bytes(1024)
    path = tmp_path / "a.tar"
    path.write_bytes(gzip.compress(content) if packed else content)
    found = []
    with pytest.raises(DataError, match=r"a\.tar cannot be read as a tar file"):
        for raw in read_shard(str(path)):
            found.append(raw.pair.caption)
    assert found in ([], ["a dog"])


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.timeout(20)
def test_a_damaged_archive_among_others_is_counted(tmp_path: Path, harm: str) -> None:
    (tmp_path / "a.tar").write_bytes(GOOD + HARM[harm] + AFTER + bytes(1024))
    (tmp_path / "b.tar").write_bytes(AFTER + bytes(1024))
    tally = Tally()
    captions = [text for frame in read_archives(tmp_path, tally) for text in frame["caption"]]
    assert captions[-1] == "a cat"
    assert tally.dropped["damaged archive"] == 1


def test_an_end_without_its_mark_is_one(tmp_path: Path) -> None:
    for content in (GOOD, GOOD + bytes(1024), GOOD + bytes(1024) + b"\xff" * 5000):
        (tmp_path / "a.tar").write_bytes(content)
        assert [raw.pair.caption for raw in read_shard(str(tmp_path / "a.tar"))] == ["a dog"]


def test_members_are_packed_whatever_the_name_says(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(gzip.compress(GOOD + bytes(1024)))
    assert [raw.pair.caption for raw in read_shard(str(tmp_path / "a.tar"))] == ["a dog"]


def test_a_bomb_in_a_tar(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with gzip.open(stream, "wb", compresslevel=1) as packed:
        packed.write(_header("b.bin", 200 << 20))
        for _ in range(200):
            packed.write(bytes(1 << 20))
    (tmp_path / "a.tar").write_bytes(stream.getvalue())
    with pytest.raises(DataError, match="unpacks to more than 100 times its size"):
        list(read_shard(str(tmp_path / "a.tar")))


@pytest.mark.parametrize(
    "described",
    [
        b'{"captions": [{"caption": "\\ud800 a dog", "entities": '
        b'[{"name": "\\udc00", "start": 0, "end": 1}]}]}',
        b'{"caption": "a dog", "entities": [{"name": "dog", "start": 1e999, "end": 1}]}',
        b'{"caption": "a dog", "entities": 3}',
        b"[" * 100_000,
        b'{"a": ' + b"1" * 5_000 + b"}",
        b"\xff",
    ],
)
def test_what_a_member_says_is_looked_at(tmp_path: Path, described: bytes) -> None:
    content = _member("a.jpg", picture(0)) + _member("a.json", described) + bytes(1024)
    (tmp_path / "a.tar").write_bytes(content)
    for raw in read_shard(str(tmp_path / "a.tar")):
        assert raw.pair.caption.encode("utf-8").endswith(b"a dog")
        assert all(mention.entity.encode("utf-8") for mention in raw.pair.mentions)


def test_patterns_stand_for_so_many_files_and_no_more() -> None:
    assert expand(["a{8..10}.tar", "b"]) == ["a8.tar", "a9.tar", "a10.tar", "b"]
    assert expand(["a{²..³}"]) == ["a{²..³}"]
    for pattern in ("a{0..99999999}", "a{0..9999}{0..9999}"):
        with pytest.raises(UsageError, match="stand for over 1,000,000 files"):
            expand([pattern])
