"""A taught starter as ONNX: head and updated tower are in the graph, its classes in the folder."""

from pathlib import Path

import numpy as np
import pytest

import ovseg
from ovseg.export.export import ExportOptions, export_loaded
from ovseg.models.interface import to_numpy
from ovseg.models.registry import load_model
from tests.export.conftest import ONE
from tests.teaching.photos import painted, painted_set
from tests.teaching.updates import with_updates


@pytest.mark.slow
def test_export_gives_the_taught_labels(tmp_path: Path) -> None:
    folder = painted_set(tmp_path / "set", range(2))
    plain, file = tmp_path / "plain.safetensors", tmp_path / "mine.safetensors"
    ovseg.teach("starter", folder, plain, folds=2, hidden=0, stuff="blip")
    with_updates(plain, file)
    taught = load_model(file, "cpu", in_torch=True)
    done = export_loaded(taught, tmp_path / "deployed", ExportOptions(images=ONE))
    exported = load_model(done.folder)
    pixels = painted(10)[0]
    names = ["zonk", "blop", "cat"]
    wanted, found = (
        ovseg.Segmenter(model).segment(pixels, names).labels for model in (taught, exported)
    )
    assert (wanted == found).mean() > 0.99
    assert {1, 2} <= set(np.unique(found))
    seen = ((pixels.transpose(2, 0, 1)[None] - 127.5) / 127.5).astype(np.float32)
    odds, told, before = (
        to_numpy(model.encode_image(model.from_numpy(seen)).embedding)[..., -2:]
        for model in (taught, exported, load_model(plain))
    )
    assert np.abs(odds - told).max() < 0.1 * np.abs(odds - before).max()  # the update is in it
    assert not exported.unknown(["Zonk", "blip"])
