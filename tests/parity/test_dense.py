"""Every result of the released dense CLIP methods, computed again."""

import json
from pathlib import Path

import pytest

pytest.importorskip("open_clip")

from tests.parity.check_dense import Fixture, Row, check, main

PREFIX = Path(__file__).parent / "data" / "dense-a"


@pytest.fixture(scope="module")
def rows() -> dict[str, Row]:
    return {row.name: row for row in check(PREFIX)}


def test_every_result_has_a_row(rows: dict[str, Row]) -> None:
    assert set(Fixture(PREFIX).names) <= set(rows)
    assert len(rows) >= 58


def test_every_row_passes(rows: dict[str, Row]) -> None:
    assert [row for row in rows.values() if not row.passes] == []


def test_constants_are_the_fixtures(tmp_path: Path) -> None:
    """The check can fail, and goes by the description: other constants must show."""
    facts = json.loads(PREFIX.with_suffix(".json").read_text())
    facts["naclip"]["gaussian_std"] = 4.0
    facts["proxyclip"] |= {"beta": 1.0, "gamma": 2.0}
    (tmp_path / "other.json").write_text(json.dumps(facts))
    (tmp_path / "other.safetensors").symlink_to(PREFIX.with_suffix(".safetensors"))
    failed = {row.name for row in check(tmp_path / "other") if not row.passes}
    shown = {"naclip.features.square", "naclip.features_neighbour_only.square", "naclip.logits"}
    shown |= {"naclip.gaussian_bias_4x6", "proxyclip.features.square_fine", "proxyclip.logits"}
    assert shown <= failed
    assert not any(name.startswith(("sclip", "clearclip", "maskclip", "pamr")) for name in failed)


def test_exit_code_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "PREFIX" in capsys.readouterr().out
