"""Building at an fsspec address: the same bytes as in a folder, whole or absent, resumed."""

import pickle
import random
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from ovseg.data.build.copying import merge_datasets
from ovseg.data.build.engine import Engine
from ovseg.data.build.inspection import inspect_dataset
from ovseg.data.build.pipeline import BuildOptions, EntityOptions, build_from_source
from ovseg.data.build.sources import CaptionSource, Columns, resolve_source
from ovseg.data.dataset.folder import ImageOptions
from ovseg.data.store import FolderStore, RemoteStore, open_store
from ovseg.errors import DataError
from ovseg_cli.__main__ import run
from tests.data.pictures import picture


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> CaptionSource:
    """24 pictures in a folder and their captions in memory, as in a bucket."""
    photos = tmp_path_factory.mktemp("photos")
    for number in range(24):
        (photos / f"{number}.jpg").write_bytes(picture(number))
    rows = "".join(f"{n}.jpg\ta dog, number {n}, on a sofa\n" for n in range(24))
    fsspec.filesystem("memory").pipe_file("/captions/rows.tsv", rows.encode())
    columns = Columns(locator="0", captions=("1",))
    return resolve_source("memory://captions/rows.tsv", "", columns, photos)


def _options(part: tuple[int, int] = (1, 1)) -> BuildOptions:
    return BuildOptions(
        EntityOptions("paper100"),
        ImageOptions(32),
        engine=Engine(workers=1),
        rows_per_shard=5,
        partners=2,
        part=part,
    )


@pytest.fixture(scope="module")
def folder(source: CaptionSource, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    built = tmp_path_factory.mktemp("built")
    build_from_source(source, built, _options())
    return _contents(built)


def _contents(address: str | Path) -> dict[str, bytes]:
    place = open_store(address)
    return place.read_many(place.names())


@pytest.fixture(params=["memory", "renaming"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store that shows a file once it is whole, and one that has to rename."""
    if request.param == "memory":
        return f"memory://bucket/{tmp_path.name}"
    return f"dir::file://{tmp_path}/remote"


def test_the_bytes_are_those_of_a_folder(
    source: CaptionSource, folder: dict[str, bytes], address: str, tmp_path: Path
) -> None:
    assert build_from_source(source, address, _options()).complete
    assert _contents(address) == folder
    assert inspect_dataset(address, samples=3).faults == []
    assert len(inspect_dataset(address, samples=3).samples) == 3


def test_parts_are_built_at_one_address_or_joined_there(
    source: CaptionSource, folder: dict[str, bytes], address: str, tmp_path: Path
) -> None:
    assert not build_from_source(source, address, _options((1, 2))).complete
    build_from_source(source, tmp_path / "second", _options((2, 2)))
    merge_datasets([address, tmp_path / "second"], f"{address}-joined")
    assert _contents(f"{address}-joined") == folder
    assert build_from_source(source, address, _options((2, 2))).complete
    assert _contents(address) == folder


class _Breaking:
    """Makes a file system's uploads fail after `left` of them, each half done."""

    def __init__(self, filesystem: type, patch: pytest.MonkeyPatch) -> None:
        self.left = 0
        original = filesystem.put_file

        def put_file(fs: Any, here: str, there: str, **named: Any) -> None:
            if self.left == 0:
                fs.pipe_file(f"{there}", Path(here).read_bytes()[:10])
                raise ConnectionResetError("the line is dead")
            self.left -= 1
            original(fs, here, there, **named)

        patch.setattr(filesystem, "put_file", put_file)


def test_uploads_that_break_off_are_resumed(
    source: CaptionSource, folder: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"dir::file://{tmp_path}/remote"
    breaking = _Breaking(fsspec.get_filesystem_class("file"), monkeypatch)
    chance = random.Random(0)
    for _ in range(60):
        breaking.left = chance.randrange(1, 7)
        try:
            build_from_source(source, address, _options())
            break
        except DataError as error:
            assert "cannot write to dir::file" in str(error)
            left = {name: data for name, data in _contents(address).items() if name in folder}
            # Only the report of what is there may differ; nothing is half.
            assert all(folder[name] == data for name, data in left.items())
    assert _contents(address) == folder
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == set(folder)


def test_a_store_that_loses_a_shard_gets_it_again(
    source: CaptionSource, folder: dict[str, bytes]
) -> None:
    address = "memory://bucket/loses"
    build_from_source(source, address, _options())
    memory: MemoryFileSystem = fsspec.filesystem("memory")
    memory.pipe_file("/bucket/loses/000002.tar", b"short")
    assert "1 of 5 shards are not built yet" in inspect_dataset(address).faults[0]
    build_from_source(source, address, _options())
    assert _contents(address) == folder


def test_the_command_line_takes_addresses(
    folder: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    memory: MemoryFileSystem = fsspec.filesystem("memory")
    for name, data in folder.items():
        memory.pipe_file(f"/bucket/shown/{name}", data)
    assert run(["build-dataset", "inspect", "memory://bucket/shown", "--samples", "1"]) == 0
    assert "all checksums of 5 shards match" in capsys.readouterr().out
    assert run(["build-dataset", "inspect", "memory://bucket/nothing"]) == 1
    assert "memory://bucket/nothing is no data set" in capsys.readouterr().err


def test_places_are_told_apart(tmp_path: Path) -> None:
    for address in (tmp_path, str(tmp_path), tmp_path.as_uri()):
        place = open_store(address)
        assert isinstance(place, FolderStore) and place.folder == tmp_path
    remote = pickle.loads(pickle.dumps(open_store("s3://bucket/data/")))
    assert isinstance(remote, RemoteStore) and remote.address == "s3://bucket/data"


def test_a_place_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ovseg.files.os.fsync", full)
    with pytest.raises(DataError, match="No space left on device"):
        open_store(tmp_path).write_text("a.json", "{}")
    assert list(tmp_path.iterdir()) == []
