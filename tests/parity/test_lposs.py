"""Label propagation against the released LPOSS, on the fixture that travels with the project."""

import json
from pathlib import Path

import pytest

from tests.parity.check_lposs import Fixture, compare, main
from tests.parity.rows import Row

PREFIX = Path(__file__).parent / "data" / "lposs-a"


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return list(compare(PREFIX))


def test_every_result_agrees(rows: list[Row]) -> None:
    assert [row for row in rows if not row.passed] == []


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_every_result_has_a_row(rows: list[Row], precision: str) -> None:
    """All but the exact solution, which the released code does not use."""
    unused = {name for name in Fixture.read(PREFIX, precision).outputs if "exact_solve" in name}
    unused |= {"window.locations"}  # where windows lie: every other row shows it
    compared = {row.covers for row in rows if row.precision == precision}
    assert compared == set(Fixture.read(PREFIX, precision).outputs) - unused


@pytest.mark.parametrize(
    ("constant", "value", "shows_in", "not_in"),
    [
        ("gamma", 2.0, "window.Wn", "window.similarities"),
        ("sigma", 0.02, "whole.Wn", "whole.similarities"),
        ("pix_dist_pow", 2.0, "window.Wn", "window.similarities"),
        ("k", 30, "window.Wn", "small15.Wn"),
        ("alpha", 0.9, "window.lp", "window.Wn"),
        ("tau", 0.02, "whole.pixel_Wn_rows", "whole.lp"),
    ],
)
def test_constants_are_the_fixtures(
    constant: str, value: float, shows_in: str, not_in: str, tmp_path: Path
) -> None:
    """The check can fail, and goes by the description: another constant must show."""
    facts = json.loads(PREFIX.with_suffix(".json").read_text())
    facts["parameters"][constant] = value
    (tmp_path / "other.json").write_text(json.dumps(facts))
    (tmp_path / "other.safetensors").symlink_to(PREFIX.with_suffix(".safetensors"))
    failed = {row.covers for row in compare(tmp_path / "other") if not row.passed}
    assert shows_in in failed
    assert not_in not in failed


def test_exit_code_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "PREFIX" in capsys.readouterr().err
