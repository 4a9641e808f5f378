"""A taught starter as ONNX: the head is in the graph, and its classes are in the folder."""

from pathlib import Path

import numpy as np
import pytest

import ovseg
from ovseg.export.export import ExportOptions, export_loaded
from ovseg.models.registry import load_model
from tests.export.conftest import ONE
from tests.teaching.photos import painted, painted_set


@pytest.mark.slow
def test_export_gives_the_taught_labels(tmp_path: Path) -> None:
    folder = painted_set(tmp_path / "set", range(2))
    file = tmp_path / "mine.safetensors"
    ovseg.teach("starter", folder, file, folds=2, hidden=0, stuff="blip")
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
    assert not exported.unknown(["Zonk", "blip"])
