"""A dense CLIP model on the command line: once as a process, from a hub on the loopback."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from ovseg_cli.__main__ import run
from tests.hub_server import serving
from tests.models.clip.tiny import TINY, write_folder

# open_clip's table has no model small enough for a test, so the process is given one first.
PROGRAM = """
import json, sys
import open_clip
from open_clip import pretrained
open_clip.factory._MODEL_CONFIGS["ViT-tiny"] = json.loads(sys.argv[1])
pretrained._PRETRAINED["ViT-tiny"] = {
    "openai": {"hf_hub": "owner/tiny/", "quick_gelu": True, "mean": [.5] * 3, "std": [.25] * 3}
}
from ovseg_cli.__main__ import run
sys.exit(run(sys.argv[2:]))
"""


@pytest.mark.slow
def test_from_the_hub_as_a_process(tmp_path: Path, chelsea: Path) -> None:
    plain = {key: value for key, value in TINY.items() if key != "quick_gelu"}
    weights = write_folder(tmp_path / "tiny") / "open_clip_model.safetensors"
    photo = tmp_path / "photo.png"
    Image.open(chelsea).resize((90, 60)).save(photo)
    asked = "segment", str(photo), "--classes", "cat,wall", "--refine", "pamr", "--json"
    command = [sys.executable, "-c", PROGRAM, json.dumps(plain), *asked]
    command += ["--model", "clip:ViT-tiny/openai", "--short-side", "64", "--prompt", "{}"]
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    with serving() as hub:
        hub.files = {"owner/tiny/open_clip_model.safetensors": weights.read_bytes()}
        online = {**environment, "HF_ENDPOINT": hub.url}
        first = subprocess.run(command, env=online, capture_output=True, text=True, check=False)
        requests = len(hub.asked)
    assert first.returncode == 0, first.stderr
    assert "downloading open_clip_model.safetensors of owner/tiny" in first.stderr
    assert requests > 0
    result = json.loads(first.stdout)
    assert sum(found["share"] for found in result["classes"]) == pytest.approx(1, abs=1e-3)
    # Offline from here: the cache has everything.
    offline = {**environment, "HF_ENDPOINT": "http://127.0.0.1:1"}
    second = subprocess.run(command, env=offline, capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stderr
    assert json.loads(second.stdout)["classes"] == result["classes"]
    assert "downloading" not in second.stderr


def test_a_folder_with_options(
    tmp_path: Path, chelsea: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_folder(tmp_path / "tiny")
    model = f"clip:{folder},head=sclip,precision=bf16"
    arguments = ["segment", str(chelsea), "--classes", "cat;kitten,wall", "--model", model]
    assert run([*arguments, "--window", "none", "--short-side", "64", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["classes"]
    assert {entry["name"] for entry in found} <= {"background", "cat", "wall"}


@pytest.mark.parametrize(
    ("model", "code", "message"),
    [
        ("clip-b61", 2, "did you mean clip-b16?"),
        ("clip:ViT-B-16/openia", 2, "it has openai"),
        ("clip-b16,head=foo", 2, "unknown head 'foo'"),
        ("clip-b16", 1, "then name it: --model clip:/path/to/file,arch=ViT-B-16-quickgelu"),
    ],
)
def test_bad_names_are_one_clear_line(
    model: str,
    code: int,
    message: str,
    tmp_path: Path,
    chelsea: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OVSEG_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert run(["segment", str(chelsea), "--classes", "cat", "--model", model]) == code
    stderr = capsys.readouterr().err
    assert message in stderr
    assert stderr.count("\n") == 1
