"""Teaching the starter classes of a made-up language, and what the result is worth."""

import json
from pathlib import Path

import numpy as np
import pytest

import ovseg
from ovseg.errors import DataError, ModelError, UsageError
from ovseg.models.description import describe
from ovseg.models.registry import load_model
from ovseg.models.taught.file import read_note
from ovseg.models.taught.taught_model import TaughtModel
from tests.teaching.photos import painted, painted_set

TEACHING = range(4)
UNSEEN = range(10, 12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return painted_set(tmp_path_factory.mktemp("set"), TEACHING)


@pytest.fixture(scope="module")
def taught(folder: Path) -> Path:
    output = folder / "mine.safetensors"
    ovseg.teach("starter", folder, output, folds=2, steps=30, hidden=16, licence="CC0-1.0")
    return output


def _agreement(found: np.ndarray, labels: np.ndarray) -> float:
    return float((found == labels).mean())


def test_knows_what_it_was_taught(taught: Path) -> None:
    segmenter = ovseg.Segmenter.from_pretrained(taught)
    for seed in UNSEEN:
        pixels, labels = painted(seed)
        found = segmenter.segment(pixels, ["zonk", "blop"]).labels
        assert _agreement(found, labels) > 0.9
        assert {1, 2} <= set(np.unique(found))


def test_scores_in_eval_and_against_words(taught: Path, tmp_path: Path) -> None:
    unseen = painted_set(tmp_path / "unseen", UNSEEN)
    assert ovseg.evaluate("folder", unseen, taught).scores.mean_iou > 0.7
    assert ovseg.evaluate("folder", unseen, "starter").scores.mean_iou < 0.4


def test_other_words_keep_their_scores(taught: Path) -> None:
    pixels = painted(10)[0]
    words = ["cat", "dog;puppy", "grass"]
    before = ovseg.segment(pixels, words)
    after = ovseg.segment(pixels, words, taught)
    assert np.array_equal(before.labels, after.labels)
    np.testing.assert_array_equal(before.scores, after.scores)


def test_torch_and_onnx_runtime_agree(taught: Path) -> None:
    pixels = painted(11)[0]
    found = [
        ovseg.Segmenter(load_model(taught, "cpu", in_torch=in_torch)).segment(
            pixels, ["zonk", "blip", "cat"]
        )
        for in_torch in (False, True)
    ]
    assert _agreement(found[0].labels, found[1].labels) > 0.995


def test_file_says_what_it_is(taught: Path) -> None:
    told = describe(str(taught))
    assert told["format"] == "taught model"
    assert told["model"]["classes"] == ["zonk", "blip"]
    assert told["model"]["data"]["photos"] == len(TEACHING)
    assert len(told["model"]["data"]["sha256"]) == 64
    assert told["licence"].endswith("AND CC0-1.0")
    scores = told["model"]["held out"]["mIoU"]
    assert scores["all"] > scores["words"]
    note, model = read_note(taught), load_model(taught)
    assert isinstance(model, TaughtModel)
    assert model.taught.doubt == note.doubt == note.recipe["mixture"]["doubt"]
    known = model.known_words()
    assert known is not None and {"zonk", "blop", "cat"} <= set(known)
    assert not load_model(taught).unknown(["Zonk", "blip", "cat"])


def test_goes_on_after_an_interruption(folder: Path, tmp_path: Path) -> None:
    """The photos that were read before are not read again, and the result is the same."""
    output = tmp_path / "again.safetensors"
    settings = {"folds": 2, "hidden": 0}

    class Killed(Exception):
        pass

    def stop(step: str, done: int, total: int | None) -> None:
        if step == "reading" and done == 3:
            raise Killed

    with pytest.raises(Killed):
        ovseg.teach("starter", folder, output, on_step=stop, **settings)
    assert not output.exists()
    with pytest.raises(UsageError, match="--resume"):
        ovseg.teach("starter", folder, output, **settings)
    with pytest.raises(UsageError, match="other photos, classes or settings"):
        ovseg.teach("starter", folder, output, resume=True, seed=1, **settings)
    read = []
    ovseg.teach(
        "starter", folder, output, resume=True,
        on_step=lambda step, done, _: read.append(done) if step == "reading" else None, **settings,
    )  # fmt: skip
    assert read == [4]
    assert not list(tmp_path.glob("*.teaching"))
    with pytest.raises(UsageError, match="not overwritten"):
        ovseg.teach("starter", folder, output, resume=True, **settings)


def test_refuses_classes_without_masks(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"no masks of cat; asked for are zonk, cat; .* zonk, blip"
    ):
        ovseg.teach("starter", folder, tmp_path / "x.safetensors", classes="zonk,cat")
    with pytest.raises(UsageError, match="no such setting: speed"):
        ovseg.teach("starter", folder, tmp_path / "x.safetensors", speed=3)
    with pytest.raises(UsageError, match=r"\.safetensors"):
        ovseg.teach("starter", folder, tmp_path / "x.onnx")


def test_refuses_a_taught_model_and_damaged_masks(
    taught: Path, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="taught already"):
        ovseg.teach(taught, folder, tmp_path / "x.safetensors")
    broken = painted_set(tmp_path / "broken", range(2))
    (broken / "labels/1.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"1\.png"):
        ovseg.teach("starter", broken, tmp_path / "x.safetensors", hidden=0)


def test_one_photo_and_classes_that_no_photo_shows(tmp_path: Path) -> None:
    folder = painted_set(tmp_path / "set", [0], ("background", "zonk", "blip", "cat"))
    output = tmp_path / "one.safetensors"
    done = ovseg.teach("starter", folder, output, hidden=0)
    assert (done.classes, done.unseen, done.held_out) == (("zonk", "blip"), ("cat",), {})
    assert read_note(output).classes == (("zonk",), ("blip",))


def test_refuses_files_of_other_bases_and_damage(taught: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    note = json.loads(json.dumps(read_note(taught).__dict__))
    arrays = load_file(taught)

    def changed(name: str, tensors: dict[str, np.ndarray], **values: object) -> Path:
        path = tmp_path / name
        save_file(tensors, path, {"ovseg.taught": json.dumps({**note, **values})})
        return path

    with pytest.raises(ModelError, match="other weights of starter"):
        load_model(changed("base.safetensors", arrays, base_hash="0" * 64))
    with pytest.raises(ModelError, match="update ovseg"):
        load_model(changed("new.safetensors", arrays, format=3))
    with pytest.raises(ModelError, match="without its outer"):
        lacking = {name: values for name, values in arrays.items() if name != "outer"}
        load_model(changed("lacking.safetensors", lacking))
    with pytest.raises(ModelError, match="its bias"):
        load_model(changed("bias.safetensors", {**arrays, "bias": arrays["bias"][:2]}))
    with pytest.raises(ModelError, match="its linear"):
        load_model(changed("nan.safetensors", {**arrays, "linear": arrays["linear"] * np.nan}))
