"""Aligned models exported: the gate, the graphs, and what runs without torch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ovseg.data.images import read_image
from ovseg.errors import ModelError
from ovseg.export.export import ExportOptions, export_loaded
from ovseg.inference.segmenter import Segmenter
from ovseg.models.aligned.aligner import AlignedPredictor, read_aligned
from ovseg.models.exported import read_exported
from tests.export.conftest import ONE
from tests.models.aligned.tiny import (
    ROTARY,
    small_aligned,
    starter_vision,
    write_tiny,
)

CLEANED = {"clean": 0.2, "scale": 1.0, "align_corners": True, "window": 64, "stride": 32}
MODELS: dict[str, dict[str, Any]] = {
    "registers": {"reading": {**CLEANED, "templates": ("{}", "a photo of a {}.")}},
    "rotary": {
        "vision": {"tower": ROTARY},
        "logits": {"scale": 20.0, "offset": True},
        "standardise": True,
        "image_projection": {"form": "linear"},
        "reading": {
            "rule": "softmax",
            "prior": 0.5,
            "mixing": 2,
            "scales": (1.0, 0.5),
            "threshold": 0.4,
        },
    },
    "starter": {
        "vision": starter_vision(stages=(5, 7), image_size=96),
        "grouping": True,
        "reading": {"maps": "groups"},
    },
}


def predictor(name: str, folder: Path) -> AlignedPredictor:
    """Of random weights, spread as a trained model's are."""
    model = read_aligned(write_tiny(folder / f"{name}.safetensors", small_aligned(**MODELS[name])))
    torch.manual_seed(0)
    for parameter in [*model.model.head.parameters(), *model.model.text.parameters()]:
        if parameter.ndim > 1 or parameter.shape == (16,):
            torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("name", list(MODELS))
def test_an_export_gives_the_models_labels(name: str, tmp_path: Path) -> None:
    model = predictor(name, tmp_path)
    options = ExportOptions(images=ONE, end_to_end=name != "rotary")
    made = export_loaded(model, tmp_path / "export", options)
    assert made.report.agreement > 0.99
    assert made.report.text_difference is not None and made.report.text_difference < 1e-4
    assert {row.what for row in made.report.rows} >= {"graph", "segmenter"}
    exported = read_exported(made.folder, "cpu")
    assert exported.card.kind == "aligned"
    assert exported.align_corners == model.align_corners
    image = read_image(ONE[0])
    words, rule = "cat,dog;puppy,grass", {"templates": ("{}", "a {}.")}
    for background in (True, False):
        wanted = Segmenter(model).segment(image, words, background=background, **rule)
        found = Segmenter(exported).segment(image, words, background=background, **rule)
        assert (wanted.labels == found.labels).mean() > 0.99
        np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-3)


def test_no_graph_for_whole_photos_at_several_sizes(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="export it without --end-to-end"):
        options = ExportOptions(images=ONE, end_to_end=True)
        export_loaded(predictor("rotary", tmp_path), tmp_path / "export", options)
    assert not (tmp_path / "export").exists()


def test_other_formats_are_written_too(tmp_path: Path) -> None:
    model = predictor("registers", tmp_path)
    for format in ("torch-export", "torchscript"):
        options = ExportOptions(format=format, images=ONE)
        assert export_loaded(model, tmp_path / format, options).report.agreement > 0.99
