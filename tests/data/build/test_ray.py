"""A build on a local Ray cluster of two cores: the same bytes as without."""

from pathlib import Path

import pytest

from ovseg.data.build import tables
from ovseg.data.build.engine import Engine
from ovseg.data.build.pipeline import BuildOptions, EntityOptions, build_from_source
from ovseg.data.build.sources import Columns, resolve_source
from ovseg.data.dataset.folder import ImageOptions
from ovseg.data.store import open_store
from ovseg.errors import DataError
from tests.data.pictures import picture

pytest.importorskip("ray.data")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ray_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(30):
        (photos / f"{number}.jpg").write_bytes(picture(number))
    table = tmp_path / "rows.tsv"
    table.write_text("".join(f"{n}.jpg\ta dog, number {n}, on a sofa\n" for n in range(30)))
    monkeypatch.setattr(tables.table_parts, "__defaults__", (300,))
    columns = Columns(locator="0", captions=("1",))
    source = resolve_source(table.as_uri(), "", columns, photos)
    assert len(source.parts()) > 2
    ray = Engine("ray", workers=2)
    built = []
    with ray.session():
        # The last goes through fsspec, which nobody takes for a folder that all machines see.
        for name, engine in (("local", Engine(workers=1)), ("ray", ray), ("remote", ray)):
            address = f"dir::file://{tmp_path}/{name}" if name == "remote" else tmp_path / name
            options = BuildOptions(
                EntityOptions("paper100"),
                ImageOptions(32),
                engine=engine,
                rows_per_shard=8,
                partners=2,
            )
            assert build_from_source(source, address, options).pairs == 30
            place = open_store(address)
            built.append(place.read_many(place.names()))
        with pytest.raises(DataError, match="nothing at 3"):
            list(ray.run(_refuse, [1, 2, 3]))
    assert built[0] == built[1] == built[2] and len(built[0]) > 20


def _refuse(number: int) -> int:
    if number == 3:
        raise DataError("nothing at 3")
    return number
