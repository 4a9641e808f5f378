"""Every result of the released dense CLIP methods, computed again."""

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


def test_a_wrong_tower_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check can fail: another width of the neighbourhood must show in NACLIP's rows."""
    from functools import partial

    from ovseg.models.clip import heads

    monkeypatch.setitem(heads.HEADS, "naclip", partial(heads.naclip, sigma=4.0))
    failed = {row.name for row in check(PREFIX) if not row.passes}
    assert "naclip.features.square" in failed
    assert "naclip.logits" in failed
    assert "sclip.logits" not in failed


def test_exit_code_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "PREFIX" in capsys.readouterr().out
