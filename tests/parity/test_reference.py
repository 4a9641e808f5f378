"""Parity with the reference implementation, on the fixture that travels with the project."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from safetensors import safe_open

from tests.parity import check

PREFIX = Path(__file__).parent / "data" / "reference-a"


@cache
def rows() -> tuple[check.Row, ...]:
    """In a process of its own, whose kernels are chosen before torch is imported."""
    command = [sys.executable, "-m", "tests.parity.check", str(PREFIX), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PREFIX.parents[3])
    assert done.returncode in (0, 1), done.stderr
    return tuple(check.Row(**row) for row in json.loads(done.stdout))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "float64", "uint8"])
def test_every_quantity_agrees(precision: str) -> None:
    compared = [row for row in rows() if row.precision == precision]
    assert compared
    assert [row for row in compared if not row.passed] == []


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_no_output_of_the_fixture_is_left_out(precision: str) -> None:
    with safe_open(f"{PREFIX}.safetensors", framework="np") as fixture:
        outputs = {name[len("out.") :] for name in fixture.keys() if name.startswith("out.")}  # noqa: SIM118
    given = {"class_embeddings"}  # an input of zero-shot inference
    compared = {row.covers for row in rows() if row.precision in (precision, "uint8")}
    assert compared == outputs - given


def test_a_wrong_weight_is_noticed() -> None:
    fixture = check.Fixture.read(PREFIX, "float64")
    fixture.state["img_encoder.norm.bias"] += 1e-4
    verdicts = {row.covers: row.passed for row in check._features(fixture)}
    assert not verdicts["image_x"]
    assert not verdicts["group_feat_before_proj"]
    assert verdicts["assign_q"] and verdicts["text_x"]


def test_the_tolerances_are_those_of_the_precision() -> None:
    single, double = (check.Fixture.read(PREFIX, name) for name in check.PRECISIONS)
    ours = single.values["out.image_x"]
    assert single.row("image_x", ours, 1e-5).tolerance == pytest.approx(1e-5 * ours.abs().max())
    assert double.row("image_x", ours, 1e-5).tolerance == pytest.approx(1e-7 * ours.abs().max())
    assert not single.row("image_x", ours * float("nan"), 1e-5).passed


def test_called_without_a_prefix_it_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main([]) == 2
    assert "tests/parity/check.py" in capsys.readouterr().err
