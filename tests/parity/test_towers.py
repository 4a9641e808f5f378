"""TIPSv2 and dino.txt against their released code, on fixtures that travel with the project."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

pytest.importorskip("transformers.models.tipsv2")

from tests.parity.check_towers import Fixture, compare, main
from tests.parity.rows import Row

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="module", params=["tips-a", "dinotxt-a"])
def rows(request: pytest.FixtureRequest) -> tuple[str, list[Row]]:
    return request.param, list(compare(DATA / request.param))


def test_every_result_agrees(rows: tuple[str, list[Row]]) -> None:
    name, found = rows
    assert [row for row in found if not row.passed] == []
    assert {row.covers for row in found} == set(Fixture.read(DATA / name).outputs)


@pytest.mark.parametrize(
    ("name", "place", "value", "shows_in"),
    [
        ("tips-a", ("parameters", "stride"), 14, "values.slide_probs_sub2"),
        ("tips-a", ("model", "ln_eps"), 1e-3, "window0.patches_plain"),
        ("dinotxt-a", ("model", "head_ln_eps"), 1e-3, "window0.head_class"),
        ("dinotxt-a", ("parameters", "short_side"), 70, "preprocessed"),
    ],
)
def test_constants_are_the_fixtures(
    name: str, place: tuple[str, str], value: float, shows_in: str, tmp_path: Path
) -> None:
    """The check can fail, and goes by the description: another constant must show."""
    facts = json.loads((DATA / f"{name}.json").read_text())
    facts[place[0]][place[1]] = value
    (tmp_path / "other.json").write_text(json.dumps(facts))
    (tmp_path / "other.safetensors").symlink_to(DATA / f"{name}.safetensors")
    assert shows_in in {row.covers for row in compare(tmp_path / "other") if not row.passed}


def test_a_wrong_weight_shows(tmp_path: Path) -> None:
    values = load_file(DATA / "tips-a.safetensors")
    values["weights.vision.blocks.2.attn.qkv.bias"][-1] += 0.1  # of a value of the last block
    save_file(values, tmp_path / "tips.safetensors")
    (tmp_path / "tips.json").symlink_to(DATA / "tips-a.json")
    failed = {row.covers for row in compare(tmp_path / "tips") if not row.passed}
    assert "window0.patches_values" in failed and "text" not in failed


def test_exit_code_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "PREFIX" in capsys.readouterr().err
