"""An aligned checkpoint through the verbs that take a model."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")

from ovseg_cli.__main__ import run
from tests.evaluation.sets import tiny
from tests.models.aligned.tiny import small_aligned, starter_vision, write_tiny


@pytest.fixture
def model(tmp_path: Path) -> Path:
    config = small_aligned(starter_vision(stages=(5,)), reading={"threshold": 0.5})
    return write_tiny(tmp_path / "aligned.safetensors", config)


def test_segment(
    model: Path, tmp_path: Path, chelsea: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = tmp_path / "photo.png"
    Image.open(chelsea).resize((90, 60)).save(photo)
    asked = ["segment", str(photo), "--classes", "cat;kitten,wall", "--model", str(model), "--json"]
    assert run([*asked, "--no-background", "-o", str(tmp_path / "out")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert sum(each["share"] for each in found["classes"]) == pytest.approx(1, abs=1e-3)
    labels = np.asarray(Image.open(tmp_path / "out" / "photo.labels.png"))
    assert labels.shape == (60, 90) and set(np.unique(labels)) <= {1, 2}


@pytest.mark.parametrize("protocol", ["own", "talk2dino", "tcl"])
def test_eval(
    model: Path, protocol: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = np.zeros((40, 60), np.uint8)
    labels[:, :30] = 8
    tiny.voc(tmp_path / "VOC2012", {"a": labels})
    asked = ["eval", "voc", "--data", str(tmp_path / "VOC2012"), "--model", str(model), "--json"]
    assert run([*asked, "--protocol", protocol]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["protocol"]["name"] == protocol
    assert document["images"] == 1


def test_info(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "info", str(model), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["model_class"], found["intact"]) == ("AlignedModel", True)
    assert found["model"]["aligned"]["vision"]["stages"] == [5]
    assert len(found["model"]["aligned"]["vision"]["digest"]) == 64
    assert "image" not in found["model"]


def test_a_tower_that_is_not_here_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chelsea: Path
) -> None:
    import ovseg
    from ovseg.errors import DownloadError
    from ovseg.models.released_files import convert_released
    from tests.models.aligned.test_talk2dino import released

    monkeypatch.setenv("OVSEG_OFFLINE", "1")
    tower = "model.aligned.vision.tower=vit_small_patch14_dinov2.lvd142m"
    out = tmp_path / "talk2dino.safetensors"
    convert_released(released(tmp_path / "any.pth"), out, [tower])
    with pytest.raises(DownloadError, match=r"vit_small_patch14_dinov2\.lvd142m@/path/to/model"):
        ovseg.Segmenter.from_pretrained(out)
