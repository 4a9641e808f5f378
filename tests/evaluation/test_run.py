"""The loop: against the protocol written out plainly, interrupted, and over two processes."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from ovseg.errors import DataError
from ovseg.evaluation.result import EvaluationResult, summarise
from ovseg.evaluation.run import Run, evaluate, predictions
from ovseg.evaluation.sets.base import EvaluationSet
from ovseg.evaluation.sets.catalogue import open_set
from ovseg.inference.encode import CHUNK
from tests.evaluation.fakes import FakeModel, folder_set, run_of
from tests.evaluation.sets import tiny
from tests.evaluation.sets.test_coco import write_instances, write_panoptic


def result_of(run: Run, **options: bool) -> EvaluationResult:
    return summarise(run, evaluate(run, **options))


# 32 x 45, 44 x 32, 32 x 45, 32 x 32, 70 x 32 in windows of 32 by 16
WINDOWS = [2, 2, 2, 1, 4]


def test_on_a_processor_the_encoder_sees_the_windows_of_an_image_together(tmp_path: Path) -> None:
    evaluated = folder_set(tmp_path)
    model = FakeModel(grouped=True)
    list(predictions(run_of(evaluated, model), evaluated.samples))
    assert sorted(model.calls) == sorted((count, 3, 32, 32) for count in WINDOWS)


def test_elsewhere_windows_are_batched_across_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated = folder_set(tmp_path)
    model = FakeModel(grouped=True)
    run = run_of(evaluated, model)
    alone = result_of(run)
    model.calls.clear()
    monkeypatch.setattr("ovseg.inference.encode._processor", lambda _: None)
    together = result_of(run)
    assert model.calls == [(sum(WINDOWS), 3, 32, 32)]
    assert (together.confusion == alone.confusion).all()


def test_worker_threads_change_nothing_and_leave_no_trace(tmp_path: Path) -> None:
    evaluated = folder_set(tmp_path)
    run = run_of(evaluated, FakeModel(grouped=False))
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(result_of(run).to_json())
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert results[0] == results[1]


@pytest.mark.parametrize("grouped", [True, False])
def test_the_batch_size_changes_no_label(tmp_path: Path, grouped: bool) -> None:
    evaluated = folder_set(tmp_path)
    run = run_of(evaluated, FakeModel(grouped=grouped))
    small = Run(run.model, run.evaluated, run.protocol, batch=1)
    first, second = result_of(run), result_of(small)
    assert (first.confusion == second.confusion).mean() > 0.99


class Killed(BaseException):
    """Stands for a process that dies."""


def many_images(root: Path) -> EvaluationSet:
    return folder_set(root, images=2 * CHUNK + 5)


def test_an_interrupted_run_continues_to_the_same_result(tmp_path: Path, own_cache: Path) -> None:
    evaluated = many_images(tmp_path)
    model = FakeModel(grouped=True)
    run = run_of(evaluated, model)
    whole = result_of(run)
    assert not list(own_cache.glob("evaluation/*/*")), "a complete run leaves nothing behind"

    def die_after_two_chunks(done: int, total: int) -> None:
        if done >= 2 * CHUNK:
            raise Killed

    with pytest.raises(Killed):
        evaluate(run, die_after_two_chunks)
    (kept,) = own_cache.glob("evaluation/*/records-0.jsonl")
    text = kept.read_text()
    kept.write_text(text[: int(len(text) * 0.7)])  # the last line is cut off
    model.calls.clear()
    assert result_of(run).to_json() == whole.to_json()
    windows = sum(shape[0] for shape in model.calls)
    assert 0 < windows < 0.7 * len(evaluated.samples) / 5 * sum(WINDOWS), "only what was missing"


def test_fresh_forgets_an_interrupted_run(tmp_path: Path, own_cache: Path) -> None:
    evaluated = many_images(tmp_path)
    run = run_of(evaluated, FakeModel(grouped=True))

    def die(done: int, total: int) -> None:
        raise Killed

    with pytest.raises(Killed):
        evaluate(run, die)
    seen: list[int] = []
    evaluate(run, lambda done, _: seen.append(done), fresh=True)
    assert seen[0] == CHUNK


def test_another_protocol_or_file_is_another_run(tmp_path: Path) -> None:
    evaluated = folder_set(tmp_path)
    model = FakeModel(grouped=True)
    key = run_of(evaluated, model).key
    assert key == run_of(evaluated, model).key
    assert key != run_of(evaluated, model, threshold=0.7).key
    assert key != run_of(evaluated, FakeModel(grouped=True, seed=1)).key
    os.utime(evaluated.samples[0].image, (1, 1))
    assert key != run_of(evaluated, model).key


@pytest.mark.parametrize("changed", ["classes.txt", "labels/00.png"])
def test_other_labels_are_another_run(tmp_path: Path, changed: str) -> None:
    evaluated = folder_set(tmp_path)
    model = FakeModel(grouped=True)
    key = run_of(evaluated, model).key
    os.utime(tmp_path / changed, (1, 1))
    assert key != run_of(evaluated, model).key


@pytest.mark.parametrize("source", ["panoptic", "instances"])
def test_changed_annotations_are_never_answered_from_an_interrupted_run(
    tmp_path: Path, source: str
) -> None:
    """Images and label PNGs stay, and cats become dogs in the JSON alone."""
    {"panoptic": write_panoptic, "instances": write_instances}[source](tmp_path)
    model = FakeModel(grouped=True)

    def die(done: int, total: int) -> None:
        raise Killed

    with pytest.raises(Killed):
        evaluate(run_of(open_set("coco-object", tmp_path), model), die)
    path = tmp_path / f"annotations/{source}_val2017.json"
    text = path.read_text().replace('"category_id": 17', '"category_id": 18')
    path.write_text(text.replace('"categories": [', '"categories": [{"id": 18, "name": "dog"}, '))
    (record,) = evaluate(run_of(open_set("coco-object", tmp_path), model))
    dog, cat = 17, 16
    assert (record.confusion[dog].sum() > 0, record.confusion[cat].sum()) == (True, 0)


PROGRAM = """
import sys
from pathlib import Path
import torch
from ovseg.evaluation.run import evaluate
from ovseg.evaluation.result import summarise
from ovseg.evaluation.sets.catalogue import open_set
from ovseg.distributed import processes
from tests.evaluation.fakes import FakeModel, run_of
torch.set_num_threads(1)
run = run_of(open_set("folder", Path(sys.argv[1])), FakeModel(grouped=True))
result = summarise(run, evaluate(run))
if processes().rank == 0:
    result.write(Path(sys.argv[2]))
"""


@pytest.mark.slow
def test_two_processes_give_the_result_of_one(tmp_path: Path) -> None:
    evaluated = many_images(tmp_path / "set")
    run = run_of(evaluated, FakeModel(grouped=True))
    whole = result_of(run)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    root = Path(__file__).parents[2]
    command = [
        *(sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes=2"),
        *("--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no"),
        *("--main_process_port=0", str(program), str(tmp_path / "set"), str(tmp_path / "r.json")),
    ]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads((tmp_path / "r.json").read_text()) == json.loads(whole.to_json())


def test_augmentation_averages_views(tmp_path: Path) -> None:
    evaluated = folder_set(tmp_path)
    model = FakeModel(grouped=True)
    plain = result_of(run_of(evaluated, model))
    model.calls.clear()
    both = result_of(run_of(evaluated, model, flip=True, scales=(0.75, 1.0)))
    assert sum(shape[0] for shape in model.calls) > 40
    assert (both.confusion != plain.confusion).any()
    assert both.protocol_hash != plain.protocol_hash


@pytest.mark.parametrize("grouped", [True, False])
def test_with_flip_a_mirrored_image_has_mirrored_labels(tmp_path: Path, grouped: bool) -> None:
    """With both views averaged it cannot matter which of them is called upright."""
    evaluated = folder_set(tmp_path, images=1)
    run = run_of(evaluated, FakeModel(grouped=grouped), flip=True)
    ((loaded, labels),) = predictions(run, evaluated.samples)
    tiny.photo(evaluated.samples[0].image, np.ascontiguousarray(loaded.image[:, ::-1]))
    ((_, mirrored),) = predictions(run, evaluated.samples)
    assert np.mean(mirrored[:, ::-1] == labels) > 0.999


@pytest.mark.parametrize("name", ["groupvit", "tcl", "sclip"])
@pytest.mark.parametrize("grouped", [True, False])
def test_refinement_runs_under_every_rule(tmp_path: Path, name: str, grouped: bool) -> None:
    evaluated = folder_set(tmp_path, images=2)
    model = FakeModel(grouped=grouped)
    plain = result_of(run_of(evaluated, model, name))
    refined = result_of(run_of(evaluated, model, name, refine="pamr", pamr_dilations=(1, 2)))
    assert refined.confusion.sum() == plain.confusion.sum()
    assert (refined.confusion != plain.confusion).any()


@pytest.mark.parametrize("name", ["groupvit", "tcl", "sclip"])
def test_a_sweep_equals_runs_at_each_threshold(tmp_path: Path, name: str) -> None:
    evaluated = folder_set(tmp_path)
    model = FakeModel(grouped=name == "groupvit")
    thresholds = (0.2, 0.35, 0.6)
    base = run_of(evaluated, model, name, scale=8.0)
    swept = result_of(Run(model, evaluated, base.protocol, thresholds))
    assert [point.threshold for point in swept.sweep] == list(thresholds)
    values = [point.mean_iou for point in swept.sweep]
    alone = [
        result_of(run_of(evaluated, model, name, scale=8.0, threshold=t)).scores.mean_iou
        for t in thresholds
    ]
    assert values == pytest.approx(alone)
    assert len(set(values)) > 1


def test_grouping_is_counted_per_window_for_groups_and_per_region_otherwise(tmp_path: Path) -> None:
    evaluated = folder_set(tmp_path)
    grouped = result_of(run_of(evaluated, FakeModel(grouped=True)))
    dense = result_of(run_of(evaluated, FakeModel(grouped=False)))
    for result in (grouped, dense):
        assert 0 < result.grouping.oracle_mean_iou < 1
        assert 0 < result.grouping.best_match_mean_iou < 1
    assert dense.grouping.oracle_mean_iou >= dense.scores.mean_iou


def test_damaged_and_odd_files_stop_the_run_with_their_name(tmp_path: Path) -> None:
    evaluated = folder_set(tmp_path)
    run = run_of(evaluated, FakeModel(grouped=True))
    tiny.index_png(tmp_path / "labels/01.png", np.zeros((3, 3)))
    with pytest.raises(DataError, match=r"01\.png: 44×60 pixels, but its labels are 3×3"):
        evaluate(run)
    (tmp_path / "images/00.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"00\.png"):
        evaluate(run)
    empty = EvaluationSet("folder", tmp_path, evaluated.words, True, (), evaluated.read_labels)
    with pytest.raises(DataError, match="no images"):
        evaluate(Run(run.model, empty, run.protocol))


def test_progress_counts_images(tmp_path: Path) -> None:
    evaluated = many_images(tmp_path)
    seen: list[Sequence[int]] = []
    evaluate(run_of(evaluated, FakeModel(grouped=True)), lambda *counts: seen.append(counts))
    assert seen == [(16, 37), (32, 37), (37, 37)]
