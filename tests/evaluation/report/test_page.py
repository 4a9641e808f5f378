"""A result as a page and as Markdown."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ovseg.evaluation.evaluate import measure
from ovseg.evaluation.report.charts import confusion_map
from ovseg.evaluation.report.page import write_report
from ovseg.evaluation.report.summary import markdown
from ovseg.evaluation.result import EvaluationResult
from ovseg.evaluation.run import Run
from tests.evaluation.fakes import FakeModel, folder_set, run_of


@pytest.fixture
def run(tmp_path: Path) -> Run:
    base = run_of(folder_set(tmp_path / "set"), FakeModel(grouped=True))
    return Run(base.model, base.evaluated, base.protocol, thresholds=(0.3, 0.6))


@pytest.fixture
def result(run: Run) -> EvaluationResult:
    return measure(run)


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


def test_a_long_name_is_cut_before_it_is_escaped(result: EvaluationResult) -> None:
    name = "a class, cut & called so"
    renamed = EvaluationResult(**{**result.__dict__, "classes": (name, *result.classes[1:])})
    assert "a class, cut &amp; call…" in confusion_map(renamed)


def test_markdown_takes_names_as_they_are(result: EvaluationResult) -> None:
    classes = ("a|b", "<b>*bold*</b>", *result.classes[2:])
    text = markdown(EvaluationResult(**{**result.__dict__, "classes": classes}))
    assert "| a\\|b |" in text
    assert "| &lt;b>\\*bold\\*&lt;/b> |" in text
