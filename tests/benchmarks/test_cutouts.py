"""Scenes a second on one core, files written.

    pytest --benchmark-only tests/benchmarks/test_cutouts.py

With the Debian package tuxpaint-stamps-default its animals are the cut-outs, else a few drawn here.
"""

import dataclasses
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from ovseg.data.cutouts import build
from ovseg.data.cutouts.compose import SceneChunk, make_chunk
from ovseg.data.cutouts.request import CutoutsRequest
from tests.benchmarks.sizes import full
from tests.data.cutouts.conftest import SHAPES, polygon, save

SCENES = full(64, 2)
STAMPS = Path("/usr/share/tuxpaint/stamps/animals")


@pytest.fixture
def chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SceneChunk:
    """A run of scenes whose pictures have been read already."""
    pytest.importorskip("resvg_py")
    folder, photographs = STAMPS, tmp_path / "photographs"
    photographs.mkdir()
    rng = np.random.default_rng(0)
    for number in range(8):
        coarse = rng.integers(0, 255, (36, 48, 3), dtype=np.uint8)
        cv2.imwrite(str(photographs / f"{number}.jpg"), cv2.resize(coarse, (1600, 1200)))
    if not folder.is_dir():
        folder = tmp_path / "cutouts"
        for name, points in SHAPES.items():
            large = cv2.resize(polygon(points, (200, 30, 30)), (384, 384))
            save(folder / f"{name}.png", large, f"A {name}.")
    kept: list[SceneChunk] = []

    def keep(stage, pieces, *rest):
        if stage != "composing scenes":
            return run(stage, pieces, *rest)
        kept.append(pieces[0].arguments)
        raise KeyboardInterrupt

    run = build.run_pieces
    monkeypatch.setattr(build, "run_pieces", keep)
    request = CutoutsRequest(folder, photographs, tmp_path / "out", SCENES, test_share=0.0)
    with pytest.raises(KeyboardInterrupt):
        build.build_cutouts(request)
    return dataclasses.replace(kept[0], count=SCENES)


def test_scenes_a_second(benchmark, chunk: SceneChunk) -> None:
    benchmark.extra_info["scenes"] = SCENES
    start = time.process_time()
    records = benchmark.pedantic(make_chunk, args=(chunk,), rounds=full(3, 1), warmup_rounds=1)
    # With the warm-up. Processor time: what an otherwise idle core would need.
    cpu = (time.process_time() - start) / (full(3, 1) + 1)
    benchmark.extra_info["scenes_per_cpu_second"] = round(SCENES / cpu, 1)
    assert len(records) == SCENES
    benchmark.extra_info["scenes_per_second"] = round(SCENES / benchmark.stats["min"], 1)
