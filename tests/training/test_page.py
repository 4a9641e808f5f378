"""The page of a run: what is in its folder, and nothing that could be run."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from ovseg.pages import line_chart, page
from ovseg.training.page import RunPage, run_page

HOSTILE = '<script>alert(1)</script>"&'


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """The folder of a run of 900 lines, with a name and scores that nobody checked."""
    folder = tmp_path / "run <b>"
    lines = [
        {"step": step, "epoch": step / 100, "loss": 5 / step, "contrastive": 3 / step, "mask": 0.0,
         "images_per_second": 30.0, "stall": None, "learning_rate": 1e-4, "unreadable": 0}
        for step in range(1, 901)
    ]  # fmt: skip
    (folder / "overlays").mkdir(parents=True)
    whole = "\n".join(json.dumps(line) for line in lines)
    (folder / "log.jsonl").write_text(f'{whole}\n{{"step": 9')
    scores = {"step": 900, "retrieval": 0.25, HOSTILE: 0.5}
    (folder / "scores.jsonl").write_text(json.dumps(scores) + "\n")
    for step in (100, 200):
        Image.new("RGB", (8, 8)).save(folder / "overlays" / f"step-{step:08d}.png")
    return folder


def test_all_that_was_logged_is_shown_and_escaped(output: Path) -> None:
    text = run_page(output)
    for title in ("Losses", "Learning rate", "Data throughput", "Scores, in percent", "Overlays"):
        assert title in text
    assert "Step 900, epoch 9.00." in text
    assert "Share of the time" not in text, "nothing was said of it"
    assert "<script" not in text and "run &lt;b&gt;" in text
    assert re.findall(r'src="([^"]+)"', text) == [
        "overlays/step-00000200.png",
        "overlays/step-00000100.png",
    ]
    assert "http" not in text, "it asks for nothing from elsewhere"
    longest = max(line.count(",") for line in re.findall(r'points="([^"]+)"', text))
    assert longest <= 400


def test_a_page_is_written_now_and_then(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    written = RunPage(output)
    path = output / "log.html"
    written.refresh()
    path.unlink()
    now = 29.0
    written.refresh()
    assert not path.exists()
    written.refresh(at_once=True)
    assert path.is_file()


def test_a_run_that_has_just_begun(tmp_path: Path) -> None:
    assert "Nothing has been logged yet." in run_page(tmp_path)


@pytest.mark.parametrize("values", [[1.0], [2.0, 2.0], [-3.0, 1e9], [0.0], [1e-9, 2e-9]])
def test_any_values_have_a_chart(values: list[float]) -> None:
    drawn = line_chart({"x": list(enumerate(values))}, "x")
    places = re.findall(r"(-?[\d.]+),(-?[\d.]+)", re.findall(r'points="([^"]*)"', drawn)[0])
    assert len(places) == len(values)
    assert all(0 <= float(x) <= 640 and 0 <= float(y) <= 220 for x, y in places)
    assert line_chart({"x": []}, "x") == ""
    assert page("<", []).count("&lt;") == 2
