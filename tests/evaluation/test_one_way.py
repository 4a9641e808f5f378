"""`ovseg segment` and `ovseg eval --protocol own` give the same label maps, pixel for pixel."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ovseg.evaluation.protocol import load_protocol
from ovseg.evaluation.run import Run, predictions
from ovseg.evaluation.sets.base import EvaluationSet
from ovseg.evaluation.sets.catalogue import open_set
from ovseg.inference.protocol import own
from ovseg.inference.segmenter import Segmenter
from ovseg.models.interface import SegmentationModel
from ovseg.models.registry import load_model
from tests.evaluation.fakes import FakeModel, folder_set
from tests.evaluation.sets import tiny
from tests.inference.fakes import ColourModel
from tests.models.clip.tiny import write_folder

WAYS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "windows": {"window": 64, "stride": 32},
    "one pass": {"window": 1 << 30, "stride": 1 << 30},
    "refined": {"refine": "pamr", "pamr_dilations": (1, 2)},
    "windows, refined": {"window": 64, "stride": 32, "refine": "pamr", "pamr_dilations": (2,)},
    "mirrored": {"flip": True, "scales": (1.0, 1.5)},
}


def photo_set(root: Path, *, background: bool) -> EvaluationSet:
    """Two photos that packages carry, cut into parts of several shapes, and made-up labels."""
    from ovseg.data.images import read_image

    photo = read_image(Path(__file__).parents[2] / "examples/chelsea.png")
    parts = (photo[:200, :260], photo[60:, 100:], photo[:120], photo[:, 30:190])
    names = ["cat", "wall; rug", "dog"]
    for index, part in enumerate(parts):
        labels = np.zeros(part.shape[:2], np.uint8)
        labels[10:, 20:] = 1
        tiny.photo(root / f"images/{index}.png", part)
        tiny.index_png(root / f"labels/{index}.png", labels)
    tiny.text(root / "classes.txt", "\n".join(["background"] * background + names) + "\n")
    return open_set("folder", root)


def starter_in_onnx_runtime(folder: Path) -> SegmentationModel:
    del folder
    return load_model("starter")


def starter_in_torch(folder: Path) -> SegmentationModel:
    del folder
    return load_model("starter", "cpu", in_torch=True)


def ovsegmentor(folder: Path) -> SegmentationModel:
    from tests.export.models import tiny_predictor

    del folder
    return tiny_predictor()


def dense_clip(folder: Path) -> SegmentationModel:
    return load_model(f"clip:{write_folder(folder / 'tiny')},head=clearclip", "cpu")


MODELS = {
    "starter, ONNX Runtime": starter_in_onnx_runtime,
    "starter, torch": starter_in_torch,
    "OVSegmentor": ovsegmentor,
    "dense CLIP": dense_clip,
    "groups": lambda _: FakeModel(grouped=True),
    "positions": lambda _: FakeModel(grouped=False),
    "NumPy": lambda _: ColourModel(),
}
THRESHOLDS = {"OVSegmentor": 0.02}  # random weights prefer nothing
SMALL_MODELS = ("OVSegmentor", "dense CLIP", "groups", "positions", "NumPy")


def labels_agree(
    model: SegmentationModel, evaluated: EvaluationSet, changes: dict[str, Any]
) -> set[int]:
    """Compare both ways on every image of a set; the labels that were seen."""
    protocol = load_protocol("own", evaluated, changes)
    protocol = protocol.for_model(model, background=evaluated.background)
    segmenter = Segmenter(model)
    chosen = own(**{**changes, "background": evaluated.background})
    files = [sample.image for sample in evaluated.samples]
    segmented = segmenter.segment_files(files, evaluated.words, chosen)
    seen: set[int] = set()
    run = Run(model, evaluated, protocol)
    for found, (loaded, labels) in zip(segmented, predictions(run, evaluated.samples), strict=True):
        assert isinstance(found, tuple)
        path, result = found
        assert path == loaded.sample.image
        first = 0 if evaluated.background else 1
        np.testing.assert_array_equal(result.labels, labels.astype(int) + first)
        seen |= set(np.unique(labels).tolist())
    return seen


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("name", SMALL_MODELS)
def test_small_models(tmp_path: Path, name: str, background: bool, way: str) -> None:
    model = MODELS[name](tmp_path)
    evaluated = folder_set(tmp_path / "set", background=background)
    seen = labels_agree(
        model, evaluated, {"short_side": 80, "threshold": THRESHOLDS.get(name, 0.3), **WAYS[way]}
    )
    assert len(seen) > 1 or name == "NumPy"


@pytest.mark.slow
@pytest.mark.parametrize("way", ["as it comes", "windows, refined"])
@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("name", ["starter, ONNX Runtime", "starter, torch"])
def test_the_starter(tmp_path: Path, name: str, background: bool, way: str) -> None:
    evaluated = photo_set(tmp_path, background=background)
    changes = {**WAYS[way], "short_side": 224}
    if "window" in changes:
        changes |= {"window": 160, "stride": 96}
    seen = labels_agree(MODELS[name](tmp_path), evaluated, changes)
    assert len(seen) > 1


def test_an_image_alone_is_as_among_others(tmp_path: Path) -> None:
    evaluated = folder_set(tmp_path, images=3)
    segmenter = Segmenter(FakeModel(grouped=False))
    files = [sample.image for sample in evaluated.samples]
    for found in segmenter.segment_files(files, evaluated.words):
        assert isinstance(found, tuple)
        alone = segmenter.segment(found[0], evaluated.words)
        np.testing.assert_array_equal(alone.labels, found[1].labels)


def test_own_fills_in_the_same_whoever_asks(tmp_path: Path) -> None:
    evaluated = folder_set(tmp_path)
    model = FakeModel(grouped=True)
    loaded = load_protocol("own", evaluated).for_model(model, background=True)
    segmented = Segmenter(model).labeller(evaluated.words).protocol
    assert segmented == replace(loaded, words=())
