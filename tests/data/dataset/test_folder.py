"""The folder of a data set in other hands: what its files say is checked before it is believed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ovseg.data.build.copying import publish_dataset
from ovseg.data.build.inspection import inspect_dataset
from ovseg.data.build.pipeline import build_from_source
from ovseg.data.build.sources import Columns, resolve_source
from ovseg.data.dataset.folder import Dataset
from ovseg.data.dataset.index import open_index
from ovseg.data.store import open_store
from ovseg.errors import DataError, UsageError
from tests.data.build.test_copying import build, options


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return build(tmp_path, (1, 1))


def _change(path: Path, change: Callable[[Any], Any]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


@pytest.mark.parametrize("name", ["../victim", "/etc/passwd", ".bashrc", "report.html", "a/../b"])
def test_names_in_dataset_json_lead_nowhere(folder: Path, tmp_path: Path, name: str) -> None:
    """They would be written over at the other end, or copied out from here."""
    victim = tmp_path / "out" / "victim"
    victim.parent.mkdir()
    victim.write_text("mine")
    (folder.parent / "victim").write_text("secret")
    _change(folder / "dataset.json", lambda d: d | {"sha256": {name: "0" * 64} | d["sha256"]})
    for act in (
        lambda: publish_dataset(folder, tmp_path / "out" / "copy"),
        lambda: inspect_dataset(folder),
        lambda: Dataset(folder).is_finished(),
    ):
        with pytest.raises(DataError, match="which is no file of a data set"):
            act()
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("name", ["../a", "/a", ".a", "", "a/b", "a\\b", "a\0", "a" * 200])
@pytest.mark.parametrize("remote", [False, True])
def test_no_store_follows_such_a_name(tmp_path: Path, name: str, remote: bool) -> None:
    store = open_store("memory://bucket/names" if remote else tmp_path / "names")
    for act in (
        lambda: store.has(name),
        lambda: store.read(name),
        lambda: store.open(name),
        lambda: store.remove(name),
        lambda: store.read_range(name, 0, 1),
        lambda: store.local_path(name).__enter__(),
        lambda: store.writing(name).__enter__(),
    ):
        with pytest.raises(DataError, match="is no name of a file in a data set"):
            act()


def test_links_out_of_a_data_set_are_not_published(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "id_rsa"
    secret.write_text("secret")
    (folder / "report.html").unlink()
    (folder / "report.html").symlink_to(secret)
    with pytest.raises(DataError, match=r"report\.html is a link out of the data set"):
        publish_dataset(folder, tmp_path / "copy")
    assert not (tmp_path / "copy" / "report.html").exists()


OTHERS = (".eslintrc.json", ".prettierrc.toml", ".backup.tar", ".index.html", ".x.abcdefgh.json")


def test_a_folder_of_somebody_else_keeps_its_files(tmp_path: Path) -> None:
    out = tmp_path / "data"
    out.mkdir()
    for name in (*OTHERS, "mine.tar"):
        (out / name).write_text("mine")
    with pytest.raises(UsageError, match="tar files that are not ours"):
        build(tmp_path, (1, 1))
    (out / "mine.tar").unlink()
    build(tmp_path, (1, 1))
    assert {(out / name).read_text() for name in OTHERS} == {"mine"}


def test_what_a_killed_builder_left_goes_when_the_place_is_known_to_be_ours(
    tmp_path: Path,
) -> None:
    folder = build(tmp_path, (1, 3))
    left = [
        folder / f"{name}"
        for name in (".000001.ovseg-abcdefgh.tar", ".index.ovseg-x1234567.parquet")
    ]
    for path in left:
        path.write_text("half")
    other = resolve_source(str(tmp_path / "photos"), "", Columns(), None)
    (tmp_path / "photos" / "more.jpg").write_bytes(b"")
    with pytest.raises(UsageError, match="was begun with other settings"):
        build_from_source(other, folder, options((1, 1)))
    assert all(path.exists() for path in left)
    (tmp_path / "photos" / "more.jpg").unlink()
    build(tmp_path, (1, 1))
    assert not any(path.exists() for path in left)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("plan.json", b"[]", "holds a list where"),
        ("plan.json", b'{"read": 1}', "dropped: Field required"),
        ("plan.json", b'{"read": [], "dropped": {}, "rows": 1, "captions": []}', "read: "),
        ("plan.json", b"[" * 100_000, "nested"),
        ("dataset.json", b"[]", "holds a list where"),
        ("dataset.json", b"{}", "sha256: Field required"),
        ("dataset.json", b'{"sha256": {"index.parquet": 3}}', "sha256.index.parquet"),
        ("000000_stats.json", b"[]", "holds a list where"),
        ("000000_stats.json", b'{"shard": "x"}', "shard: "),
        ("000000_stats.json", b'{"shard": 1}', "is of shard 1"),
        ("000000_stats.json", b'{"shard": 1e400}', "shard: "),
        ("000000_stats.json", b"\xff", "not UTF-8"),
        ("plan.parquet", b"PAR1", "is damaged"),
        ("index.parquet", b"PAR1", "is damaged"),
        ("entities.toml", b"a.b = ", "no list of entities"),
        ("entities.toml", b"[[entity]]\nname='a'\ncount=1e999", "no list of entities"),
        ("partners.npy", b"\x93NUMPY", "is damaged"),
    ],
)
def test_damaged_files_are_told(folder: Path, name: str, content: bytes, told: str) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=told):
        inspect_dataset(folder)


def _write(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(path)), path)


def _put(name: str, values: list[Any], kind: pa.DataType) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        column = pa.array(values[: len(table)] + values[-1:] * (len(table) - len(values)), kind)
        return table.set_column(table.schema.names.index(name), name, column)

    return change


CHANGES: dict[str, Callable[[pa.Table], pa.Table]] = {
    "no captions": lambda table: table.drop_columns(["caption"]),
    "captions that are numbers": _put("caption", [[1]], pa.list_(pa.int8())),
    "captions that are not UTF-8": lambda table: _put("caption", [b"\xff"], pa.binary())(table),
    "a gap": _put("key", [None, "a"], pa.string()),
    "entities beyond the list": _put("entities", [[60_000]], pa.list_(pa.uint16())),
    "lists of different lengths": _put("starts", [[1, 2, 3]], pa.list_(pa.uint32())),
    "two columns of one name": lambda table: table.append_column("key", table["key"]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_tables_that_are_not_ours_are_told(folder: Path, change: str) -> None:
    _write(folder / "index.parquet", CHANGES[change])
    for read in (lambda: open_index((str(folder),)), lambda: inspect_dataset(folder, verify=False)):
        with pytest.raises(DataError, match=r"index\.parquet is damaged"):
            read()


def test_a_table_of_a_shard_is_compared_with_what_was_joined(folder: Path) -> None:
    assert inspect_dataset(folder).faults == []
    before = (folder / "000001.parquet").read_bytes()
    _write(folder / "000001.parquet", _put("caption", ["a cat"], pa.string()))
    (fault,) = inspect_dataset(folder).faults
    assert "000001.parquet is not what was joined into index.parquet" in fault
    (folder / "000001.parquet").write_bytes(before[:200])
    (fault,) = inspect_dataset(folder).faults
    assert "000001.parquet is damaged" in fault


@pytest.mark.parametrize(
    ("offset", "size"), [(1 << 60, 10), (-5, 10), (0, 1 << 62), (0, -1), (0, 0)]
)
def test_places_that_an_index_claims_are_compared_with_the_shard(
    folder: Path, offset: int, size: int
) -> None:
    from ovseg.data.dataset.shards import UnreadableError

    _write(folder / "index.parquet", _put("offset", [offset], pa.int64()))
    _write(folder / "index.parquet", _put("size", [size], pa.int64()))
    with pytest.raises(UnreadableError, match="ends too soon"):
        open_index((str(folder),)).image(0)


def test_partners_that_are_not_there_are_told(folder: Path) -> None:
    rows = np.load(folder / "partners.npy")
    np.save(folder / "partners.npy", np.full_like(rows, 1_000_000))
    index = open_index((str(folder),))
    index.load_partners()
    with pytest.raises(DataError, match="names pairs that are not there"):
        index.partner(0, 0)
    with pytest.raises(DataError, match="names pairs that are not there"):
        inspect_dataset(folder, verify=False)
    np.save(folder / "partners.npy", rows.astype(np.float32))
    with pytest.raises(DataError, match="holds something else"):
        open_index((str(folder),)).load_partners()
