"""Results: written and read back, and compared."""

import json
from pathlib import Path

import numpy as np
import pytest

from ovseg.errors import DataError, UsageError
from ovseg.evaluation.evaluate import measure
from ovseg.evaluation.result import EvaluationResult, compare
from ovseg.evaluation.run import Run
from tests.evaluation.fakes import FakeModel, folder_set, run_of


@pytest.fixture
def result(tmp_path: Path) -> EvaluationResult:
    base = run_of(folder_set(tmp_path / "set"), FakeModel(grouped=True))
    return measure(Run(base.model, base.evaluated, base.protocol, thresholds=(0.3, 0.6)))


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


@pytest.mark.parametrize(
    "text", ["{}", "[1]", "no json", '{"format": 99}', "[" * 100_000, '{"format": "\\ud800"}']
)
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"other\.json: not a result"):
        EvaluationResult.read(path)
    with pytest.raises(DataError, match="cannot be read"):
        EvaluationResult.read(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("set", 3),
        ("classes", [3]),
        ("threshold", "x"),
        ("protocol", []),
        ("protocol", {"hash": "0" * 12, "name": "own"}),
        ("model", {"name": "x"}),
        ("counts", {"per_image": [{"name": 3}], "confusion": [], "boundary": []}),
        ("counts", {"per_image": [], "confusion": [[1]], "boundary": []}),
        ("counts", {"per_image": [], "confusion": [[1e300]], "boundary": []}),
        ("scores", {"grouping": []}),
        ("sweep", [3]),
    ],
)
def test_a_result_that_was_changed_is_refused(
    result: EvaluationResult, tmp_path: Path, key: str, value: object
) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(json.loads(result.to_json()) | {key: value}))
    with pytest.raises(DataError, match=r"result\.json: not a result"):
        EvaluationResult.read(path)


def test_a_protocol_without_its_values_is_one_line(
    result: EvaluationResult, tmp_path: Path
) -> None:
    document = json.loads(result.to_json())
    del document["protocol"]["window"]
    path = tmp_path / "result.json"
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"not a result of .*: protocol: window: Field required"):
        EvaluationResult.read(path)


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
