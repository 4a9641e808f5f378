"""Masks carried over frames against DINO's released code, on the fixture of the project."""

import json
from pathlib import Path

import pytest

from tests.parity.check_video import Fixture, compare, main
from tests.parity.rows import Row

PREFIX = Path(__file__).parent / "data" / "video-a"


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return list(compare(PREFIX))


def test_every_result_agrees(rows: list[Row]) -> None:
    assert [row for row in rows if not row.passed] == []
    assert {row.covers for row in rows} == set(Fixture.read(PREFIX).outputs)


@pytest.mark.parametrize(
    ("constant", "value"),
    [("temperature", 0.2), ("topk", 4), ("neighbourhood_radius", 3), ("n_last_frames", 2),
     ("mean", [0.5, 0.456, 0.406])],
)  # fmt: skip
def test_constants_are_the_fixtures(constant: str, value: object, tmp_path: Path) -> None:
    """The check can fail, and goes by the description: another constant must show."""
    facts = json.loads(PREFIX.with_suffix(".json").read_text())
    facts["parameters"][constant] = value
    (tmp_path / "other.json").write_text(json.dumps(facts))
    (tmp_path / "other.safetensors").symlink_to(PREFIX.with_suffix(".safetensors"))
    failed = {row.covers for row in compare(tmp_path / "other") if not row.passed}
    assert "frame5.propagated" in failed


def test_exit_code_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "PREFIX" in capsys.readouterr().err
