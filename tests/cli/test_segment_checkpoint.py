"""`ovseg segment --model FILE` with the protocol's options."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ovseg_cli.__main__ import run
from tests.models.ovsegmentor.test_predictor import write_small_checkpoint

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_small_checkpoint(tmp_path)


def photo(folder: Path, height: int, width: int) -> Path:
    path = folder / f"{height}x{width}.png"
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(noise).save(path)
    return path


@pytest.mark.parametrize(
    ("options", "passes"),
    [
        (["--window", "none", "--short-side", "64"], [(64, 96)]),  # nearest multiples of 16
        (["--window", "64/32", "--short-side", "64"], [(64, 64)]),
        (["--window", "48", "--short-side", "64"], [(48, 48)]),
        ([], [(448, 448)]),  # the published protocol
    ],
)
def test_one_pass_or_windows(
    checkpoint: Path,
    tmp_path: Path,
    options: list[str],
    passes: list[tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
) -> None:
    from ovseg.models.ovsegmentor.image_encoder import ImageEncoder

    seen = []
    forward = ImageEncoder.forward
    monkeypatch.setattr(
        ImageEncoder,
        "forward",
        lambda self, pixels: seen.append(tuple(pixels.shape[-2:])) or forward(self, pixels),
    )
    out = tmp_path / "out"
    image = photo(tmp_path, 70, 102)
    command = ["segment", str(image), "--model", str(checkpoint), "--classes", "cat,dog;sky"]
    assert run([*command, *options, "--output", str(out), "--save", "logits,groups", "--json"]) == 0
    assert seen == passes
    labels = np.asarray(Image.open(out / "70x102.labels.png"))
    assert labels.shape == (70, 102) and set(np.unique(labels)) <= {0, 1, 2}
    groups = np.asarray(Image.open(out / "70x102.groups.png"))
    with np.load(out / "70x102.logits.npz") as saved:
        scores = saved["group_scores"]
    assert scores.shape[1] == 3 and groups.max() < scores.shape[0]
    assert json.loads(capsys.readouterr().out)["width"] == 102


def test_prompts_change_the_scores(checkpoint: Path, tmp_path: Path, capsys: Captured) -> None:
    image, found = photo(tmp_path, 64, 64), []
    for prompts in ([], ["--prompt", "cat {}"], ["--prompt", "cat {}", "--prompt", "{} photo"]):
        options = ["--window", "none", "--short-side", "64", "--no-background", "--json"]
        command = ["segment", str(image), "--model", str(checkpoint), "--classes", "cat,dog"]
        assert run([*command, *options, *prompts]) == 0
        found.append(json.loads(capsys.readouterr().out)["classes"][0]["score"])
    assert len(set(found)) == 3


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--window", "50"], "multiple of 16"),
        (["--window", "big"], "448/224"),
        (["--prompt", "a photo"], "exactly one {}"),
    ],
)
def test_options_that_make_no_sense(
    checkpoint: Path, tmp_path: Path, options: list[str], complaint: str, capsys: Captured
) -> None:
    command = ["segment", str(photo(tmp_path, 64, 64)), "--model", str(checkpoint)]
    assert run([*command, "--classes", "cat", *options]) == 2
    assert complaint in capsys.readouterr().err


def test_windows_work_with_the_starter_too(chelsea: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["segment", str(chelsea), "--classes", "cat", "--window", "320", "-o", str(out)]
    assert run(command) == 0
    labels = np.asarray(Image.open(out / "chelsea.labels.png"))
    assert (labels[60:260, 60:360] == 1).mean() > 0.9


def test_a_released_checkpoint_is_sent_to_conversion(tmp_path: Path, capsys: Captured) -> None:
    released = tmp_path / "released.pth"
    released.write_bytes(b"PK\x03\x04")
    command = ["segment", str(photo(tmp_path, 64, 64)), "--model", str(released)]
    assert run([*command, "--classes", "cat"]) == 1
    assert "ovseg models convert" in capsys.readouterr().err
