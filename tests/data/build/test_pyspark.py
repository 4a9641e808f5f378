"""Fetching through img2dataset's Spark distributor on a local master: guarded, the same bytes."""

import shutil
from pathlib import Path

import pytest

from ovseg.data.build.engine import Engine
from ovseg.data.build.pipeline import BuildOptions, EntityOptions, build_from_source
from ovseg.data.build.sources import Columns, resolve_source
from ovseg.data.dataset.folder import ImageOptions
from ovseg.data.guard import FetchOptions
from ovseg.data.store import open_store
from tests.data.build.hostile import hostile_server

pytest.importorskip("img2dataset")
pytest.importorskip("pyspark", reason="pyspark is not installed: pip install 'ovseg[spark]'")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java, and there is none")
def test_spark_fetches_behind_the_guard(tmp_path: Path) -> None:
    names = ["good", "nowhere", "reserved", "to-file"]
    with hostile_server() as server:
        home = f"http://127.0.0.1:{server.server_port}"
        rows = [f"{home}/{name}.jpg?{n}\ta dog\n" for n, name in enumerate(names)]
        table = tmp_path / "rows.tsv"
        table.write_text("".join([*rows, "file:///etc/passwd\ta dog\n"]))
        source = resolve_source(str(table), "", Columns(locator="0", captions=("1",)), None)
        contents = []
        for engine in (Engine(workers=1), Engine("pyspark", workers=2)):
            options = BuildOptions(
                EntityOptions("paper100"),
                ImageOptions(32),
                FetchOptions(allow_private_hosts=True, threads=2),
                engine,
                rows_per_shard=3,
                partners=2,
            )
            summary = build_from_source(source, tmp_path / engine.kind, options)
            place = open_store(tmp_path / engine.kind)
            contents.append(place.read_many(place.names()))
    assert (summary.pairs, summary.failures) == (
        1,
        {"HTTP 404": 1, "opted out": 1, "bad redirect": 1, "not http or https": 1},
    )
    assert contents[0] == contents[1]
