"""Results: written and read back, compared, and shown."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from ovseg.errors import DataError, UsageError
from ovseg.evaluation.report.page import write_report
from ovseg.evaluation.report.summary import markdown
from ovseg.evaluation.result import EvaluationResult, compare, summarise
from ovseg.evaluation.run import Run, evaluate
from tests.evaluation.fakes import FakeModel, folder_set
from tests.evaluation.test_run import run_of


@pytest.fixture
def run(tmp_path: Path) -> Run:
    base = run_of(folder_set(tmp_path / "set"), FakeModel(grouped=True))
    return Run(base.model, base.evaluated, base.protocol, thresholds=(0.3, 0.6))


@pytest.fixture
def result(run: Run) -> EvaluationResult:
    return summarise(run, evaluate(run))


def test_summary_agrees_with_the_counts(result: EvaluationResult) -> None:
    common, true, predicted = result.areas.sum(0).T
    iou = common / (true + predicted - common)
    assert result.scores.iou == pytest.approx(iou)
    assert result.scores.mean_iou == pytest.approx(iou.mean())
    assert result.interval.low <= result.scores.mean_iou <= result.interval.high
    assert len(result.image_mean_iou) == len(result.names) == 5
    assert result.threshold == 0.6
    swept = {point.threshold: point.mean_iou for point in result.sweep}
    assert swept[0.6] == result.scores.mean_iou


def test_written_and_read_back(result: EvaluationResult, tmp_path: Path) -> None:
    path = tmp_path / "out/result.json"
    result.write(path)
    again = EvaluationResult.read(path)
    assert again.to_json() == result.to_json()
    document = json.loads(path.read_text())
    assert document["protocol"]["hash"] == result.protocol_hash
    assert document["scores"]["mean_iou"] == result.scores.mean_iou


def test_what_could_not_be_measured_is_null_and_comes_back(
    result: EvaluationResult, tmp_path: Path
) -> None:
    confusion = result.confusion.copy()
    confusion[2], confusion[:, 2] = 0, 0
    changed = EvaluationResult(**{**result.__dict__, "confusion": confusion})
    path = tmp_path / "result.json"
    changed.write(path)
    assert json.loads(path.read_text())["classes"][2]["iou"] is None
    assert np.isnan(EvaluationResult.read(path).scores.iou[2])


@pytest.mark.parametrize("text", ["{}", "[1]", "no json", '{"format": 99}'])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"other\.json: not a result"):
        EvaluationResult.read(path)
    with pytest.raises(DataError, match="cannot be read"):
        EvaluationResult.read(tmp_path / "absent.json")


def test_comparison_pairs_images_by_name(result: EvaluationResult) -> None:
    order = [3, 1, 4, 0, 2]
    shuffled = EvaluationResult(
        **{
            **result.__dict__,
            "names": tuple(result.names[index] for index in order),
            "areas": result.areas[order],
        }
    )
    difference = compare(result, shuffled)
    assert (difference.value, difference.interval.low, difference.interval.high) == (0, 0, 0)


def test_comparison_refuses_other_images(result: EvaluationResult) -> None:
    fewer = EvaluationResult(
        **{**result.__dict__, "names": result.names[:3], "areas": result.areas[:3]}
    )
    with pytest.raises(UsageError, match="5 and 3, 3 shared"):
        compare(result, fewer)
    other = EvaluationResult(**{**result.__dict__, "set_name": "voc"})
    with pytest.raises(UsageError, match="evaluate the same set twice"):
        compare(result, other)


def test_markdown_has_scores_classes_and_provenance(result: EvaluationResult) -> None:
    text = markdown(result)
    assert f"| mIoU | {100 * result.scores.mean_iou:.2f} (" in text
    assert "| red dog |" in text
    assert result.protocol_hash in text


class Page(HTMLParser):
    """Collects tags, and every address that a browser would load."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.opened.append(tag)
        if tag not in ("meta", "img", "br", "!doctype", "rect", "line", "circle", "polyline"):
            self.open.append(tag)
        for key, value in attrs:
            if key in ("src", "href", "xlink:href", "srcset", "action", "data"):
                self.addresses.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            while self.open.pop() != tag:
                pass


def test_the_page_is_whole_and_asks_for_nothing(
    run: Run, result: EvaluationResult, tmp_path: Path
) -> None:
    path = write_report(run, result, tmp_path / "report")
    assert {p.name for p in path.parent.iterdir()} == {"index.html", "result.json", "result.md"}
    text = path.read_text()
    page = Page()
    page.feed(text)
    assert page.open == []
    assert page.addresses and all(a.startswith("data:image/jpeg;base64,") for a in page.addresses)
    assert not re.search(r"url\(|@import|<script|https?://", text)
    assert page.opened.count("img") == 3 * 5  # best and worst are all five images, once each
    assert page.opened.count("svg") == 4
    for name in (*result.classes, *result.names, result.protocol_hash, "Background threshold"):
        assert name in text


def test_names_are_escaped(run: Run, result: EvaluationResult, tmp_path: Path) -> None:
    classes = ("background", "<script>alert(1)</script>", "a&b", "tree")
    hostile = EvaluationResult(**{**result.__dict__, "classes": classes})
    text = write_report(run, hostile, tmp_path / "report").read_text()
    assert "<script" not in text
    assert "&lt;script&gt;" in text
