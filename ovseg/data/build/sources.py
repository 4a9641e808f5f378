"""The sources a data set can be built from, by name or by what a path holds."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from ovseg.data.build import collections
from ovseg.data.build.columns import Layout
from ovseg.data.build.lines import WHOLE, TablePart, read_head
from ovseg.data.build.tables import check_columns, read_table, table_parts
from ovseg.data.dataset.plan import Tally
from ovseg.data.streams import open_binary
from ovseg.documents import digits
from ovseg.download import Progress, fetch
from ovseg.errors import UsageError
from ovseg.files import cache_folder


@dataclass(frozen=True)
class KnownSource:
    """A published data set: how its captions file is laid out and where it comes from.

    Their publishers state neither checksums nor exact sizes: `size` is for people, and a download
    is whole when it has the length that the server announced.
    """

    layout: Layout | None
    url: str = ""
    size: str = ""
    home: str = ""

    def fetch(self, progress: Progress | None = None) -> Path:
        """The captions file in the cache, downloaded where it is not there yet."""
        name = self.url.rsplit("/", 1)[-1]
        return fetch(self.url, cache_folder() / "captions" / name, progress=progress)


KNOWN = {
    "cc12m": KnownSource(
        Layout("tsv", 0, (1,)),
        "https://storage.googleapis.com/conceptual_12m/cc12m.tsv",
        "about 2.5 GB",
        "https://github.com/google-research-datasets/conceptual-12m",
    ),
    "cc3m": KnownSource(
        Layout("tsv", 1, (0,)),
        "https://storage.googleapis.com/gcc-data/Train/GCC-training.tsv",
        "about 0.5 GB",
        "https://ai.google.com/research/ConceptualCaptions/download",
    ),
    # Title and description, form-encoded; column 14 is the picture's own address.
    "yfcc": KnownSource(
        Layout("tsv", 14, (6, 7), encoded=True), home="https://multimediacommons.wordpress.com"
    ),
    "redcaps": KnownSource(None, home="https://redcaps.xyz"),
    "coco": KnownSource(None, home="https://cocodataset.org"),
}

_SUFFIXES = {
    ".tsv": "tsv",
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",  # an array of rows
    ".parquet": "parquet",
}
_PACKED = (".gz", ".bz2", ".xz", ".zst")


@dataclass(frozen=True)
class CaptionSource:
    """Captions somewhere, and where their images are.

    `kind` is "table", "coco", "redcaps", "folder" or "archives"; `images` is the folder that the
    locators are relative to, None where they are to be fetched.
    """

    kind: str
    address: str
    images: Path | None
    layout: Layout | None = None

    def parts(self) -> list[TablePart]:
        """Stretches of the source that can be read apart; all of them, in order, are the whole."""
        if self.kind == "table" and self.layout is not None:
            return table_parts(self.address, self.layout)
        return [WHOLE]

    def check(self) -> None:
        """UsageError where a table lacks a column, before anything is made of it."""
        if self.kind == "table" and self.layout is not None:
            check_columns(self.address, self.layout)

    def chunks(self, tally: Tally, part: TablePart = WHOLE) -> Iterator[pl.DataFrame]:
        """Read a part (see `captions.CHUNK_SCHEMA`); unusable rows go to `tally`."""
        by_name = self.images is not None
        if self.kind == "coco":
            return collections.read_coco(self.address, tally, by_name)
        if self.kind == "redcaps":
            return collections.read_redcaps(self.address, tally, by_name)
        if self.kind == "folder":
            return collections.read_folder(Path(self.address), tally)
        if self.kind == "archives":
            return collections.read_archives(Path(self.address), tally)
        if self.layout is None:
            raise ValueError("a table needs a layout")
        return read_table(self.address, self.layout, tally, part)

    def holds(self, folder: Path) -> bool:
        """Whether a folder lies in the source, which would then change while it is read."""
        if self.kind not in ("folder", "archives"):
            return False
        return folder.resolve().is_relative_to(Path(self.address).resolve())

    def fingerprint(self) -> str:
        """Tells this source's content from another's: of a file its size and first megabyte.

        Of a folder, the names and sizes of its files. Where it lies does not matter.
        """
        digest = hashlib.sha256(repr((self.kind, self.layout)).encode())
        path = Path(self.address)
        if path.is_dir():
            for file in sorted(path.rglob("*")):
                if file.is_file():
                    entry = (file.relative_to(path).as_posix(), file.stat().st_size)
                    digest.update(repr(entry).encode("utf-8", "surrogateescape"))
        else:
            with open_binary(self.address) as stream:
                digest.update(stream.read(1 << 20))
            digest.update(str(path.stat().st_size if path.is_file() else "").encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class Columns:
    """What the user said about a table's columns; empty means: as usual for the source."""

    format: str = ""
    locator: str = ""
    captions: tuple[str, ...] = ()
    header: bool | None = None


def resolve_source(
    name: str,
    file: str,
    columns: Columns,
    images: Path | None,
    download: Progress | None = None,
) -> CaptionSource:
    """The source that `name` (of `KNOWN`, or a path or fsspec address) and the options mean.

    `file` is where the captions of a known source lie; left empty, they are downloaded where the
    source is one file that may be, and `download` hears of the bytes.
    """
    if images is not None and not images.is_dir():
        raise UsageError(f"--images {images} is no folder")
    if name in KNOWN:
        if not file and not KNOWN[name].url:
            raise UsageError(
                f"{name}: give the captions with --source FILE (see {KNOWN[name].home})"
            )
        file = file or str(KNOWN[name].fetch(download))
        layout = KNOWN[name].layout
        if layout is None:
            return CaptionSource(name, file, images)
        return CaptionSource("table", file, images, _override(layout, columns))
    address = file or name
    if "://" not in address and not Path(address).exists():
        raise UsageError(
            f"there is no source {name!r}: give one of {', '.join(KNOWN)}, or a path that exists"
        )
    if Path(address).is_dir():
        return _folder_source(Path(address))
    return _file_source(address, columns, images)


def _folder_source(path: Path) -> CaptionSource:
    archives = next(path.rglob("*.tar"), None) is not None
    return CaptionSource("archives" if archives else "folder", str(path), path)


def _file_source(address: str, columns: Columns, images: Path | None) -> CaptionSource:
    bare = address.lower()
    for suffix in _PACKED:
        bare = bare.removesuffix(suffix)
    if columns.format in ("coco", "redcaps"):
        return CaptionSource(columns.format, address, images)
    if not columns.format and bare.endswith(".json"):
        head = read_head(address)
        if head.lstrip()[:1] != b"[":
            kind = "redcaps" if b'"raw_caption"' in head else "coco"
            return CaptionSource(kind, address, images)
    format = columns.format or _SUFFIXES.get(Path(bare).suffix, "")
    if not format:
        raise UsageError(
            f"{address}: cannot tell the format from the name; "
            "give source.format: tsv, csv, jsonl, parquet, coco or redcaps"
        )
    usual = Layout(format, "url", ("caption",), header=True)
    return CaptionSource("table", address, images, _override(usual, columns))


def _override(layout: Layout, columns: Columns) -> Layout:
    """`layout` with the user's columns; numbers mean a table without a header."""
    locator: str | int = columns.locator or layout.locator
    captions: tuple[str | int, ...] = columns.captions or layout.captions
    given = (columns.locator, *columns.captions)
    numbered = any(given) and all(digits(name) is not None for name in given if name)
    header = columns.header if columns.header is not None else (layout.header and not numbered)
    return Layout(columns.format or layout.format, locator, captions, header, layout.encoded)
