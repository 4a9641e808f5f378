"""A build on a local Ray cluster of two cores: the same bytes as without."""

from pathlib import Path

import pytest

from ovseg.data.corpus import tables
from ovseg.data.corpus.build import BuildOptions, EntityOptions, build_dataset
from ovseg.data.corpus.encoding import ImageOptions
from ovseg.data.corpus.engines import Engine
from ovseg.data.corpus.sources import Columns, resolve_source
from ovseg.files import sha256
from tests.data.corpus.pictures import picture

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
    built = {}
    for engine in (Engine(workers=1), Engine("ray", workers=2)):
        folder = tmp_path / engine.kind
        options = BuildOptions(
            EntityOptions("paper100"), ImageOptions(32), engine=engine, rows_per_shard=8, partners=2
        )
        assert build_dataset(source, folder, options).pairs == 30
        files = (path for path in sorted(folder.iterdir()) if path.name != ".lock")
        built[engine.kind] = {path.name: sha256(path) for path in files}
    assert built["ray"] == built["local"]
