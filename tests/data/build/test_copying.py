"""Copying a data set through fsspec: complete, incremental, in the order that says so."""

from pathlib import Path

import fsspec
import pytest

from ovseg.data.build.copying import publish_dataset
from ovseg.data.build.engine import Engine
from ovseg.data.build.pipeline import BuildOptions, EntityOptions, build_from_source
from ovseg.data.build.sources import Columns, resolve_source
from ovseg.data.dataset.folder import ImageOptions
from ovseg.errors import DataError, UsageError
from tests.data.pictures import picture


def options(part: tuple[int, int]) -> BuildOptions:
    return BuildOptions(
        EntityOptions("paper100"),
        ImageOptions(32),
        engine=Engine(workers=1),
        rows_per_shard=2,
        partners=2,
        part=part,
    )


def build(folder: Path, part: tuple[int, int]) -> Path:
    """A part of the data set `data` in a folder, of six pictures in its `photos`."""
    photos = folder / "photos"
    photos.mkdir(exist_ok=True)
    for number in range(6):
        (photos / f"{number}.jpg").write_bytes(picture(number))
        (photos / f"{number}.txt").write_text("a dog")
    source = resolve_source(str(photos), "", Columns(), None)
    build_from_source(source, folder / "data", options(part))
    return folder / "data"


def test_shards_go_as_they_are_built_and_once(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    address = f"memory://{tmp_path.name}/data"
    folder = build(tmp_path, (1, 3))
    assert publish_dataset(folder, address) == 4 + 4
    assert not memory.exists(f"{address}/dataset.json")
    build(tmp_path, (1, 1))
    assert publish_dataset(folder, address) == 2 * 4 + 7
    assert publish_dataset(folder, address) == 0
    names = {path.name for path in folder.iterdir()} - {".lock"}
    assert {Path(path).name for path in memory.ls(address, detail=False)} == names
    for name in names:
        assert memory.cat_file(f"{address}/{name}") == (folder / name).read_bytes()


@pytest.mark.parametrize("name", ["recipe.json", "plan.json", "report.html"])
def test_files_of_somebody_else_are_not_written_over(tmp_path: Path, name: str) -> None:
    folder = build(tmp_path, (1, 1))
    target = tmp_path / "elsewhere"
    target.mkdir()
    (target / name).write_text("mine")
    with pytest.raises(UsageError, match=f"elsewhere holds another {name}"):
        publish_dataset(folder, target)
    assert {path.name: path.read_text() for path in target.iterdir()} == {name: "mine"}


def test_what_a_killed_copy_left_goes(tmp_path: Path) -> None:
    folder = build(tmp_path, (1, 1))
    publish_dataset(folder, tmp_path / "copy")
    left = tmp_path / "copy" / ".000000.ovseg-abcdefgh.tar"
    left.write_text("half")
    (tmp_path / "copy" / ".mine.tar").write_text("mine")
    assert publish_dataset(folder, tmp_path / "copy") == 0
    assert not left.exists()
    assert (tmp_path / "copy" / ".mine.tar").read_text() == "mine"


def test_where_nobody_can_write(tmp_path: Path) -> None:
    folder = build(tmp_path, (1, 1))
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        publish_dataset(folder, str(tmp_path / "file" / "below"))
    with pytest.raises(DataError, match="cannot read from nosuch://place: Protocol not known"):
        publish_dataset(folder, "nosuch://place")
