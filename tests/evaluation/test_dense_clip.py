"""A dense CLIP, tiny but real, through whole protocols."""

from pathlib import Path

from ovseg.models.registry import load_model
from tests.evaluation.fakes import folder_set, run_of
from tests.evaluation.test_protocols_in_full import agreement
from tests.models.clip.tiny import write_folder

SIZES = {"short_side": 80, "window": 64, "stride": 32}


def test_sclip_equals_the_protocol_written_out(tmp_path: Path) -> None:
    """All 80 templates; random towers differ little, so cosines count for more."""
    model = load_model(f"clip:{write_folder(tmp_path / 'tiny')},head=sclip", "cpu")
    evaluated = folder_set(tmp_path / "set")
    changes = {**SIZES, "threshold": 0.3, "scale": 400.0}
    assert agreement(run_of(evaluated, model, "sclip", **changes)) > 0.999
