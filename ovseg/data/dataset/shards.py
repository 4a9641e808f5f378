"""Writing one shard: a webdataset tar, its table, its checksum and, last, its statistics.

    000000.tar         <key>.jpg <key>.txt <key>.json per image, in the order of the plan
    000000.parquet     every row of the shard, written or not, with status and byte range
    000000.tar.sha256  for `sha256sum --check`
    000000_stats.json  counts and checksums; its presence says that the shard is complete

An image with several captions is stored once, under the key of its first pair; the `.json` member
has all of them in `captions`, each with the key of its pair. Older data sets store it with each.

Nothing in them depends on the time or the machine: building a shard again gives the same bytes.
"""

import hashlib
import json
import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from ovseg.data.dataset.parquet import damage_told, read_columns
from ovseg.data.store import Address, FolderStore, Store, open_store
from ovseg.documents import fit, parse_object
from ovseg.errors import DataError

OK = "ok"
_FILES_KEPT_OPEN = 256
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)  # for whoever might write into a pipe
# What a shard consists of. The statistics are written last, so that they say: it is complete.
SUFFIXES = (".tar", ".parquet", ".tar.sha256", "_stats.json")
_FILE = re.compile("[0-9]{6,}(?:" + "|".join(map(re.escape, SUFFIXES)) + ")")
_LARGEST = 1 << 30  # bytes of an image in a shard; a table may claim more
TABLE_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("shard", pa.uint32()),
        ("offset", pa.int64()),  # of the JPEG in the tar, bytes
        ("size", pa.int64()),  # of the JPEG, bytes
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("caption", pa.string()),
        ("entities", pa.list_(pa.uint16())),
        ("starts", pa.list_(pa.uint32())),
        ("ends", pa.list_(pa.uint32())),
        ("locator", pa.string()),
        ("status", pa.string()),
    ]
)


@dataclass(frozen=True)
class PlanRow:
    """One pair that a shard should hold, before its image is known."""

    locator: str
    caption: str
    member_offset: int | None
    member_size: int | None
    entities: list[int]
    starts: list[int]
    ends: list[int]


@dataclass(frozen=True)
class PreparedImage:
    """JPEG bytes and the size of the picture in them, in pixels."""

    data: bytes
    width: int
    height: int


@dataclass
class ShardStats:
    """What is in a shard; `failures` counts the rows without an image by reason."""

    shard: int
    rows: int = 0
    written: int = 0
    image_bytes: int = 0
    tar_sha256: str = ""
    tar_size: int = 0
    failures: dict[str, int] = field(default_factory=dict)


def plan_rows(table: pa.Table) -> list[PlanRow]:
    """The rows of a shard's plan as objects."""
    columns = [table.column(name).to_pylist() for name in table.column_names]
    return [PlanRow(*values) for values in zip(*columns, strict=True)]


def rows_by_image(rows: Sequence[PlanRow]) -> list[list[int]]:
    """The places of the rows that show one image, image by image, in the order of their firsts."""
    places: dict[tuple[str, int | None], list[int]] = {}
    for place, row in enumerate(rows):
        places.setdefault((row.locator, row.member_offset), []).append(place)
    return list(places.values())


def shard_name(number: int) -> str:
    """`000012`, the common part of a shard's file names."""
    return f"{number:06d}"


def sample_key(shard: int, position: int) -> str:
    """The key of a pair: unique in the data set, and sorted as the pairs are."""
    return f"{shard:06d}{position:05d}"


def shard_files(number: int) -> tuple[str, ...]:
    """The names of a shard's files, in the order in which they are written."""
    return tuple(f"{shard_name(number)}{suffix}" for suffix in SUFFIXES)


def is_shard_file(name: str) -> bool:
    """Whether a file of some shard is called so."""
    return _FILE.fullmatch(name) is not None


def write_shard(
    address: Address,
    number: int,
    rows: Sequence[PlanRow],
    images: Iterable[PreparedImage | str],
    names: Sequence[str],
) -> ShardStats:
    """Write shard `number` at a place.

    `images` has, for each of `rows_by_image`, the image or the reason why there is none. `names`
    are the entities' names, for the `.json` members. Complete or absent: the statistics are
    written last.
    """
    store = open_store(address)
    stats = ShardStats(number, rows=len(rows))
    table: dict[str, list] = {name: [] for name in TABLE_SCHEMA.names}
    failures: Counter[str] = Counter()
    found: dict[int, _Found] = {}
    with store.writing(f"{shard_name(number)}.tar") as path, path.open("wb") as stream:
        tar = _Tar(stream)
        for places, image in zip(rows_by_image(rows), images, strict=True):
            if isinstance(image, PreparedImage):
                pairs = [(sample_key(number, place), rows[place]) for place in places]
                offset = _add_sample(tar, pairs, image, names)
                here = _Found(OK, offset, len(image.data), image.width, image.height)
                stats.written += len(places)
                stats.image_bytes += len(image.data)
            else:
                failures[image] += len(places)
                here = _Found(image)
            found |= dict.fromkeys(places, here)
        tar.close()
    for place, row in enumerate(rows):
        _append(table, number, sample_key(number, place), row, found[place])
    stats.tar_sha256, stats.tar_size = tar.sha256(), tar.size
    stats.failures = dict(sorted(failures.items()))
    _write_side_files(store, table, stats)
    return stats


@dataclass(frozen=True)
class _Found:
    """What became of a row's image: status, place in the tar in bytes, size in pixels."""

    status: str
    offset: int | None = None
    size: int | None = None
    width: int | None = None
    height: int | None = None


def _add_sample(
    tar: "_Tar",
    pairs: Sequence[tuple[str, PlanRow]],
    image: PreparedImage,
    names: Sequence[str],
) -> int:
    """Add the members of an image, whose pairs have keys; the offset of the JPEG."""
    key, row = pairs[0]
    offset = tar.add(f"{key}.jpg", image.data)
    tar.add(f"{key}.txt", row.caption.encode("utf-8"))
    tar.add(f"{key}.json", _describe(pairs, image, names))
    return offset


def _write_side_files(store: Store, table: dict[str, list], stats: ShardStats) -> None:
    name = shard_name(stats.shard)
    with store.writing(f"{name}.parquet") as path:
        pq.write_table(pa.table(table, schema=TABLE_SCHEMA), path, compression="zstd")
    store.write_text(f"{name}.tar.sha256", f"{stats.tar_sha256}  {name}.tar\n")
    store.write_text(f"{name}_stats.json", json.dumps(asdict(stats), indent=2) + "\n")


def _append(table: dict[str, list], number: int, key: str, row: PlanRow, found: _Found) -> None:
    values = (
        *(key, number, found.offset, found.size, found.width, found.height),
        *(row.caption, row.entities, row.starts, row.ends, row.locator, found.status),
    )
    for column, value in zip(table.values(), values, strict=True):
        column.append(value)


def _describe(
    pairs: Sequence[tuple[str, PlanRow]], image: PreparedImage, names: Sequence[str]
) -> bytes:
    key, row = pairs[0]
    described = {
        "key": key,
        "url": row.locator,
        "caption": row.caption,
        "width": image.width,
        "height": image.height,
        "entities": _spans(row, names),
    }
    if len(pairs) > 1:
        described["captions"] = [
            {"key": key, "caption": row.caption, "entities": _spans(row, names)}
            for key, row in pairs
        ]
    return json.dumps(described, ensure_ascii=False).encode("utf-8")


def _spans(row: PlanRow, names: Sequence[str]) -> list[dict[str, str | int]]:
    spans = zip(row.entities, row.starts, row.ends, strict=True)
    return [{"name": names[n], "start": start, "end": end} for n, start, end in spans]


class _Tar:
    """A plain ustar archive, written forwards, that knows where each member begins."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()
        self.size = 0

    def add(self, name: str, data: bytes) -> int:
        """Append a member and return the offset of its first byte."""
        header = tarfile.TarInfo(name)
        header.size, header.mode = len(data), 0o644
        self._write(header.tobuf(tarfile.USTAR_FORMAT))
        offset = self.size
        self._write(data)
        self._write(bytes(-len(data) % tarfile.BLOCKSIZE))
        return offset

    def close(self) -> None:
        """Write the end of the archive."""
        self._write(bytes(-(self.size + 1024) % tarfile.RECORDSIZE + 1024))
        self._stream.flush()

    def sha256(self) -> str:
        return self._digest.hexdigest()

    def _write(self, data: bytes) -> None:
        self._stream.write(data)
        self._digest.update(data)
        self.size += len(data)


def read_shard_table(store: Store, number: int) -> pa.Table:
    """The table of a shard that is complete, as `TABLE_SCHEMA` has it."""
    name = shard_name(number)
    advice = f"remove {name}_stats.json to build the shard again"
    with damage_told(f"{store}/{name}.parquet", advice), store.open(f"{name}.parquet") as stream:
        return read_columns(stream, TABLE_SCHEMA)


def read_images(store: Store, number: int) -> dict[int, PreparedImage]:
    """The images of a shard that is complete, by the row's place in the plan; else none."""
    stats = read_stats(store, [number]).get(number)
    if stats is None:
        return {}
    with store.open(f"{shard_name(number)}.tar") as stream:
        found: dict[int, PreparedImage] = {}
        seen: dict[int, PreparedImage] = {}
        for position, row in enumerate(read_shard_table(store, number).to_pylist()):
            start, size = row["offset"] or 0, row["size"] or 0
            if row["status"] != OK or not _lies_within(start, size, stats.tar_size):
                continue  # and is fetched again
            if start not in seen:
                stream.seek(start)
                data = stream.read(size)
                seen[start] = PreparedImage(data, row["width"] or 0, row["height"] or 0)
            found[position] = seen[start]
    return found


def _lies_within(start: int, size: int, whole: int) -> bool:
    """Whether so many bytes from `start` on are some, and part of so large a file."""
    return start >= 0 and 0 < size <= min(_LARGEST, whole - start)


def read_stats(store: Store, numbers: Sequence[int]) -> dict[int, ShardStats]:
    """The statistics of those of the shards that are complete; the others are still to be built."""
    sizes = store.sizes([name for number in numbers for name in shard_files(number)])
    begun = {n: names[-1] for n in numbers if set(names := shard_files(n)) <= set(sizes)}
    contents = store.read_many(begun.values())
    found = {}
    for number, name in begun.items():
        if name in contents:
            stats = _parse_stats(contents[name], f"{store}/{name}", number)
            if sizes[f"{shard_name(number)}.tar"] == stats.tar_size:
                found[number] = stats
    return found


def _parse_stats(content: bytes, where: str, number: int) -> ShardStats:
    try:
        stats = fit(ShardStats, parse_object(content, where), where)
    except DataError as error:
        raise DataError(f"{error}: remove it to build the shard again") from error
    if stats.shard != number:
        raise DataError(f"{where} is of shard {stats.shard}: remove it to build the shard again")
    return stats


class UnreadableError(Exception):
    """An image's bytes cannot be had; `fatal` if its shard as a whole cannot."""

    def __init__(self, reason: str, fatal: bool) -> None:
        super().__init__(reason)
        self.fatal = fatal


class ShardImages:
    """The images in a data set's shards, read by their range of bytes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._open_files: dict[int, int] = {}

    def __reduce__(self) -> tuple[type["ShardImages"], tuple[Store]]:
        return ShardImages, (self._store,)  # open files stay with their process

    def missing(self, shards: Sequence[int]) -> list[str]:
        """Those of the shards that a folder lacks; remote ones are not looked for."""
        if not isinstance(self._store, FolderStore):
            return []
        paths = [f"{self._store}/{shard_name(shard)}.tar" for shard in shards]
        return [path for path in paths if not os.path.isfile(path)]

    def read(self, shard: int, start: int, size: int) -> bytes:
        """`size` bytes of a shard from `start` on.

        Raises:
            UnreadableError: the shard is gone, or ends too soon.
        """
        path = f"{self._store}/{shard_name(shard)}.tar"
        try:
            data = self._read(shard, start, size) if 0 < size <= _LARGEST and start >= 0 else b""
        except OSError as error:
            raise UnreadableError(f"{path}: {error.strerror or error}", fatal=True) from error
        if not data or len(data) != size:
            raise UnreadableError(f"{path} ends too soon", fatal=False)
        return data

    def _read(self, shard: int, start: int, size: int) -> bytes:
        name = f"{shard_name(shard)}.tar"
        if not isinstance(self._store, FolderStore):
            return self._store.read_range(name, start, size)
        handle = self._open_files.get(shard)
        if handle is None:
            if len(self._open_files) >= _FILES_KEPT_OPEN:
                os.close(self._open_files.pop(next(iter(self._open_files))))
            handle = os.open(self._store.path(name), os.O_RDONLY | _NO_WAIT)
            self._open_files[shard] = handle
        size = min(size, max(os.fstat(handle).st_size - start, 0))
        return os.pread(handle, size, start)  # has no position, so processes can share the file
