"""Killed, asked to stop, resumed: a run is the same to the last bit."""

import json
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.amp import GradScaler

from ovseg.data.dataset.index import open_index
from ovseg.errors import DataError, RecipeError, UsageError
from ovseg.locks import holding
from ovseg.training.checkpoint import CheckpointFolder, read_meta
from ovseg.training.optim import load_scaler, scaler_tensors
from ovseg.training.run import train
from tests.training.runs import finish, kill_after, log_of, recipe, start, steps_logged


def assert_same_end(output: Path, expected: Path, processes: int = 1) -> None:
    """Weights, moments, momentum encoder, noise and log are equal bit by bit."""
    name = "checkpoints/step-00000008"
    files = [f"{name}/{part}.safetensors" for part in ("model", "optimizer", "momentum")]
    files += [f"{name}/process-{rank}.safetensors" for rank in range(processes)]
    for file in [*files, "last.safetensors"]:
        found, wanted = load_file(output / file), load_file(expected / file)
        assert found.keys() == wanted.keys()
        for key, tensor in wanted.items():
            assert torch.equal(found[key], tensor), (file, key)
    assert log_of(output) == log_of(expected)


@pytest.fixture(scope="module")
def whole(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing happened to."""
    output = tmp_path_factory.mktemp("whole") / "run"
    assert finish(start(recipe(scenes), output)) == [0]
    assert [line["step"] for line in log_of(output)] == list(range(1, 9))
    return output


@pytest.mark.parametrize(("workers", "later"), [(0, 0), (1, 3)])
def test_killed_and_resumed_equals_uninterrupted(
    workers: int, later: int, scenes: Path, whole: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    started = start(recipe(scenes, f"data.workers={workers}"), output)
    kill_after(started, output, 5)
    assert finish(started) == [-signal.SIGKILL]
    assert 5 <= steps_logged(output) < 8
    assert finish(start(recipe(scenes, f"data.workers={later}"), output)) == [0]
    assert_same_end(output, whole)


@pytest.mark.parametrize("parts", [1, 2])
def test_two_processes_killed_and_resumed(parts: int, scenes: Path, tmp_path: Path) -> None:
    outputs = [tmp_path / name for name in ("whole", "killed")]
    target = recipe(scenes, "data.batch_size=2", f"data.accumulation={parts}")
    assert finish(start(target, outputs[0], processes=2)) == [0, 0]
    started = start(target, outputs[1], processes=2)
    kill_after(started, outputs[1], 5)
    finish(started)
    assert finish(start(target, outputs[1], processes=2)) == [0, 0]
    assert_same_end(outputs[1], outputs[0], processes=2)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGUSR1])
def test_asked_to_stop_it_saves_and_goes_on(
    how: int, scenes: Path, whole: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    started = start(recipe(scenes, "train.save_every=0", "data.workers=1"), output)
    kill_after(started, output, 2, how)
    assert finish(started) == [128 + how]
    done = steps_logged(output)
    saved = CheckpointFolder(output / "checkpoints", 9).complete()
    assert [path.name for path in saved] == [f"step-{done:08d}"]
    assert not (output / "last.safetensors").exists()
    assert finish(start(recipe(scenes), output)) == [0]
    assert_same_end(output, whole)


def test_two_processes_stop_at_one_step(scenes: Path, tmp_path: Path) -> None:
    started = start(recipe(scenes, "data.batch_size=2"), tmp_path, processes=2)
    kill_after(started[:1], tmp_path, 2, signal.SIGTERM)  # only one of them is asked
    assert finish(started) == [143, 143]
    assert CheckpointFolder(tmp_path / "checkpoints", 9).complete()


def test_another_number_of_processes_goes_on_with_the_same_batch(
    scenes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    started = start(recipe(scenes, "data.batch_size=2"), tmp_path, processes=2)
    kill_after(started, tmp_path, 4, signal.SIGTERM)
    assert finish(started) == [143, 143]
    with pytest.raises(RecipeError, match="a step took 4 pairs and would now take 2"):
        train(recipe(scenes, "data.batch_size=2"), tmp_path, resume="auto")
    with caplog.at_level("WARNING", "ovseg"):
        assert train(recipe(scenes), tmp_path, resume="auto").steps == 8
    assert "was written by 2 processes, now there are 1" in caplog.text


def test_checkpoints_that_are_not_whole_count_as_nothing(
    scenes: Path, whole: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    shutil.copytree(whole, output)
    folder = CheckpointFolder(output / "checkpoints", 2)
    newest, older = folder.complete()
    (newest / "complete").unlink()
    (newest / "model.safetensors").write_bytes(b"half of it")
    (output / "checkpoints" / ".step-00000009.tmp").mkdir()
    with (output / "log.jsonl").open("a") as stream:
        stream.write('{"step": 9, "lo')  # the power went
    (output / "last.safetensors").unlink()
    assert train(recipe(scenes), output, resume="auto").steps == 8
    assert older.name == "step-00000006"
    assert_same_end(output, whole)
    assert [path.name for path in folder.complete()] == ["step-00000008", "step-00000006"]


def test_a_folder_with_a_run_is_not_overwritten(scenes: Path, whole: Path) -> None:
    with pytest.raises(UsageError, match="already holds a run: go on with --resume auto"):
        train(recipe(scenes), whole)


def test_a_recipe_that_changed_is_refused_by_key(scenes: Path, whole: Path) -> None:
    changed = recipe(scenes, "schedule.learning_rate=5e-3", "loss.mask.weight=0.2")
    with pytest.raises(RecipeError) as caught:
        train(changed, whole, resume="auto")
    assert len(caught.value.problems) == 2
    assert "loss.mask.weight: 0.1 -> 0.2 since this checkpoint" in str(caught.value)


def test_other_data_is_refused(scenes: Path, whole: Path, tmp_path: Path) -> None:
    from tests.training.scenes import make_scenes

    other = make_scenes(tmp_path / "other", seed=1)
    with pytest.raises(RecipeError, match="no longer holds the same pairs"):
        train(recipe(other), whole, resume="auto")
    moved = tmp_path / "moved"
    shutil.copytree(scenes, moved)
    copy = tmp_path / "run"
    shutil.copytree(whole, copy)
    assert train(recipe(moved), copy, resume="auto").steps == 8


def test_a_checkpoint_of_a_run_segments(whole: Path) -> None:
    from ovseg.models.ovsegmentor.predictor import read_model

    model = read_model(whole / "last.safetensors")
    grouped = model.encode_image(torch.zeros(1, 3, 32, 32))
    assert grouped.embedding.shape == (1, 4, 32)
    state = json.loads((whole / "checkpoints/step-00000008/state.json").read_text())
    assert (state["epoch"], state["position"]) == (0, 32)


def test_no_space_left_keeps_what_is_there(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ovseg.training import saver

    real = saver.write_tensors

    def full(path: Path, tensors: dict) -> None:
        if "step-00000006" in str(path):
            raise OSError(28, "No space left on device")
        real(path, tensors)

    monkeypatch.setattr(saver, "write_tensors", full)
    with pytest.raises(DataError, match=r"No space left on device.*--resume auto"):
        train(recipe(scenes), tmp_path, resume="auto")
    saved = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert saved == ["step-00000003"]


def test_a_log_that_cannot_grow_ends_the_run_with_one_line(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ovseg.training.log import JsonLines

    real = JsonLines.append

    def full(self: JsonLines, values: dict) -> None:
        if values["step"] == 5:
            raise OSError(28, "No space left on device", str(self.path))
        real(self, values)

    with monkeypatch.context() as patch, pytest.raises(DataError) as caught:
        patch.setattr(JsonLines, "append", full)
        train(recipe(scenes), tmp_path)
    assert "log.jsonl: cannot be written: No space left on device; go on" in str(caught.value)
    assert train(recipe(scenes), tmp_path, resume="auto").steps == 8


def test_a_train_state_of_version_0_1_goes_on(scenes: Path, tmp_path: Path) -> None:
    """In float16, whose loss scale torch's scaler has taken over; one step before was skipped."""
    before = Path(__file__).parent / "data" / "train-state"
    folder = tmp_path / "checkpoints" / "step-00000020"
    shutil.copytree(before / "step-00000020", folder)
    state = json.loads((folder / "state.json").read_text())
    assert state["loss_scale"] == 1.0  # a field that nothing ever read
    state["fingerprint"] = open_index((str(scenes),)).fingerprint()  # as this Pillow writes JPEGs
    (folder / "state.json").write_text(json.dumps(state))
    target = recipe(
        scenes,
        "train.precision=fp16",
        "model.projector_width=16",
        "model.embedding_width=8",
        "schedule.max_steps=24",
    )
    assert train(target, tmp_path, resume="auto").skipped == 15
    expected = {
        line["step"]: line
        for line in map(json.loads, (before / "log.jsonl").read_text().splitlines())
    }
    found = log_of(tmp_path)
    assert [line["step"] for line in found] == [21, 22, 23, 24]
    for line in found:
        for name in ("loss", "contrastive", "entity", "mask", "scale", "learning_rate"):
            assert line[name] == pytest.approx(expected[line["step"]][name], rel=5e-2), name
    own = load_file(tmp_path / "checkpoints" / "step-00000024" / "process-0.safetensors")
    assert (own["loss_scale.scale"].item(), own["loss_scale.good"].item()) == (2.0, 4.0)


def test_a_loss_scale_goes_on() -> None:
    scaler, later = (GradScaler("cpu", enabled=True) for _ in range(2))
    load_scaler(scaler, {"scale": torch.tensor(64.0), "good": torch.tensor(1999.0)})
    assert scaler.scale(torch.tensor(2.0)) == 128
    load_scaler(later, scaler_tensors(scaler))
    assert later.scale(torch.tensor(2.0)) == 128
    assert scaler_tensors(later) == scaler_tensors(scaler)
    off = GradScaler("cpu", enabled=False)
    load_scaler(off, scaler_tensors(scaler))
    assert scaler_tensors(off) == {} and off.scale(torch.tensor(2.0)) == 2


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("step", 10**30),
        ("step", 7),
        ("step", "8"),
        ("best", "high"),
        ("best", 1e400),
        ("world_size", 0),
        ("world_size", 3),
        ("world_size", -1),
        ("unreadable_in_a_row", []),
        ("unreadable_in_a_row", ["x"]),
        ("unreadable", [1]),
        ("recipe", 3),
        ("more", 1),
        ("format", 9),
    ],
)
def test_a_state_that_cannot_be_is_one_sentence(
    key: str, value: object, whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "step-00000008"
    shutil.copytree(whole / "checkpoints" / "step-00000008", folder)
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(state | {key: value}))
    with pytest.raises(DataError, match=r"state\.json"):
        read_meta(folder)
    for content in ("", "[]", "[" * 3000, '{"step": ' + "9" * 5000 + "}"):
        (folder / "state.json").write_text(content)
        with pytest.raises(DataError, match=r"state\.json"):
            read_meta(folder)


@pytest.mark.parametrize(
    ("file", "tensors"),
    [
        ("process-0", {}),
        ("process-0", {"host": torch.zeros(3)}),
        ("process-0", {"host": torch.zeros(5056, dtype=torch.int64)}),
        ("optimizer", {"logit_scale/exp_avg": torch.zeros(())}),
        ("optimizer", {"logit_scale/step": torch.zeros(4)}),
        ("optimizer", {"logit_scale/exp_avg": torch.tensor(float("nan"))}),
    ],
)
def test_what_a_run_cannot_go_on_from_is_one_sentence(
    file: str, tensors: dict, scenes: Path, whole: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    shutil.copytree(whole, output)
    path = output / "checkpoints" / "step-00000008" / f"{file}.safetensors"
    save_file(tensors, path)
    with pytest.raises(DataError, match=rf"{file}\.safetensors"):
        train(recipe(scenes), output, resume="auto")


def test_a_log_that_is_no_text_is_gone_over(scenes: Path, whole: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    shutil.copytree(whole, output)
    before = log_of(output)
    with (output / "log.jsonl").open("ab") as stream:
        stream.write(b'\xff\xfe\n{"step": "x"}\n[3]\n' + b"[" * 3000 + b"\n")
    train(recipe(scenes), output, resume="auto")
    assert log_of(output) == before


def test_what_killed_runs_left_is_gone_and_nothing_else(
    scenes: Path, whole: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    shutil.copytree(whole, output)
    checkpoints = output / "checkpoints"
    shutil.copytree(checkpoints / "step-00000006", checkpoints / "step-00000001")  # surplus
    for name in (".step-00000007.tmp", ".step-00000003.old"):
        (checkpoints / name).mkdir()
    (output / ".last.ovseg-abcdefgh.safetensors").touch()
    kept = [output / ".last.txt", output / ".mine.safetensors", checkpoints / "step-00000500"]
    kept[2].mkdir()
    (kept[2] / "model.safetensors").touch()  # of another program
    for path in kept[:2]:
        path.touch()
    train(recipe(scenes), output, resume="auto")
    assert all(path.exists() for path in kept)
    left = {path.name for path in checkpoints.iterdir()}
    assert left == {"step-00000006", "step-00000008", "step-00000500"}
    assert not (output / ".last.ovseg-abcdefgh.safetensors").exists()


def test_two_runs_at_one_output_are_refused(scenes: Path, tmp_path: Path) -> None:
    with holding(tmp_path / "run"), pytest.raises(UsageError, match="another run is at work here"):
        train(recipe(scenes), tmp_path / "run")
