"""Parity of aligned models with Talk2DINO's released code, on the fixtures of the project."""

from functools import cache
from pathlib import Path

import pytest

pytest.importorskip("timm")

from tests.parity.aligned_fixture import AlignedFixture
from tests.parity.check_aligned import _inference, compare, main
from tests.parity.rows import Row

DATA = Path(__file__).parent / "data"
FIXTURES = ("talk2dino-a", "talk2dino-c")


@cache
def rows(name: str) -> tuple[Row, ...]:
    return tuple(compare(DATA / name))


@pytest.mark.parametrize("name", FIXTURES)
def test_every_quantity_agrees(name: str) -> None:
    assert [row for row in rows(name) if not row.passed] == []


@pytest.mark.parametrize("name", FIXTURES)
def test_no_output_of_the_fixture_is_left_out(name: str) -> None:
    assert sorted(row.covers for row in rows(name)) == AlignedFixture(DATA / name).names


@pytest.mark.parametrize(
    ("section", "key", "value", "noticed"),
    [
        ("model", "ln_eps", 1e-5, "window0.patch_tokens"),
        ("model", "interpolate_antialias", False, "window0.patch_tokens"),
        ("inference", "lambda_bg", 0.21, "window0.bg_clean_scale0125"),
        ("inference", "bg_thresh", 0.56, "slide.bg.labels"),
        ("attention_scale", "released_constant", 0.12, "window0.bg_clean_scale0125"),
    ],
)
def test_values_are_read_and_wrong_ones_noticed(
    section: str, key: str, value: float, noticed: str
) -> None:
    fixture = AlignedFixture(DATA / "talk2dino-a")
    fixture.facts[section][key] = value
    failed = {row.covers for row in filter(None, _inference(fixture)) if not row.passed}
    assert noticed in failed
    assert "text" not in failed


def test_called_without_a_prefix_it_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "tests/parity/check_aligned.py" in capsys.readouterr().err
