"""A dense CLIP, tiny but real, through whole protocols."""

from pathlib import Path

import numpy as np
import pytest

from ovseg.evaluation.protocol import load_protocol
from ovseg.evaluation.run import Run, predictions
from ovseg.inference.options import Options
from ovseg.inference.segmenter import Segmenter
from ovseg.inference.windows import SlidingWindow
from ovseg.models.registry import load_model
from tests.evaluation.fakes import folder_set, run_of
from tests.evaluation.test_protocols_in_full import agreement
from tests.models.clip.tiny import write_folder

SIZES = {"short_side": 80, "window": 64, "stride": 32}


@pytest.mark.parametrize("head", ["sclip", "naclip"])
def test_own_is_what_segment_does(tmp_path: Path, head: str) -> None:
    """The model's own protocol, and the segmenter with its windows: the same label maps."""
    model = load_model(f"clip:{write_folder(tmp_path / 'tiny')},head={head}", "cpu")
    evaluated = folder_set(tmp_path / "set")
    protocol = load_protocol("own", evaluated, SIZES).for_model(model, background=True)
    options = Options(window=SlidingWindow(64, 32), short_side=80)
    seen: set[int] = set()
    for loaded, labels in predictions(Run(model, evaluated, protocol), evaluated.samples):
        found = Segmenter(model).segment(loaded.image, evaluated.words, options=options)
        assert np.mean(found.labels == labels) > 0.998
        seen |= set(np.unique(labels).tolist())
    assert len(seen) > 1


def test_sclip_equals_the_protocol_written_out(tmp_path: Path) -> None:
    """All 80 templates; random towers differ little, so cosines count for more."""
    model = load_model(f"clip:{write_folder(tmp_path / 'tiny')},head=sclip", "cpu")
    evaluated = folder_set(tmp_path / "set")
    changes = {**SIZES, "threshold": 0.3, "scale": 400.0}
    assert agreement(run_of(evaluated, model, "sclip", **changes)) > 0.999
