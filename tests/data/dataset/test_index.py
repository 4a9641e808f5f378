"""Reading a data set's pairs by number: from a folder, a bucket, several of them, and damaged."""

from pathlib import Path

import pytest

from ovseg.data.dataset.index import PairIndex, open_index
from ovseg.errors import DataError
from tests.training.scenes import make_scenes


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def index(scenes: Path) -> PairIndex:
    return open_index((str(scenes),))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("index.parquet", None, "names folders that ovseg build-dataset has finished"),
        ("index.parquet", b"PAR1 nonsense", "is damaged"),
        ("entities.toml", b"= 3", "no list of entities"),
    ],
)
def test_damaged_folders_say_so(
    name: str, content: bytes | None, message: str, tmp_path: Path
) -> None:
    make_scenes(tmp_path, pairs=8)
    path = tmp_path / name
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_index((str(tmp_path),))


def test_a_remote_folder_reads_like_a_local_one(scenes: Path, index: PairIndex) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for path in scenes.iterdir():
        memory.pipe_file(f"/set/{path.name}", path.read_bytes())
    remote = open_index(("memory://set",))
    remote.load_partners()
    assert remote.image(40) == index.image(40) and remote.pair(40) == index.pair(40)
    assert remote.fingerprint() == index.fingerprint()


def test_entities_of_several_folders_count_as_one(tmp_path: Path, scenes: Path) -> None:
    both = open_index((str(scenes), str(make_scenes(tmp_path, pairs=10, seed=2))))
    assert len(both) == 74 and len(both.entity_names) == 4
    assert both.pair(70).key == "00000100001"
