"""`ovseg models` through its runner, and once as a process."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from ovseg.models import catalogue, registry
from ovseg.models.catalogue import Entry
from ovseg_cli.__main__ import run
from tests.conftest import ROOT
from tests.hub_server import Hub, in_place_of_the_hub

PARITY = Path(__file__).parents[1] / "parity" / "data"
HEADS = ["--set", "model.text.heads=4"]
BODY = bytes(range(256)) * 2000


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that has a model called `tiny`."""
    entry = Entry("tiny", "test", "a test", "MIT", "https://host/", hub="owner/tiny", size=512_000)
    monkeypatch.setattr(registry, "CATALOGUE", (entry,))
    monkeypatch.setattr(catalogue, "CATALOGUE", (entry,))
    with in_place_of_the_hub(tmp_path / "hub", monkeypatch) as server:
        server.files = {"owner/tiny/open_clip_model.safetensors": BODY}
        yield server


def results(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_list_tells_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "list"]) == 0
    out = capsys.readouterr().out
    assert "starter  (starter, here)" in out
    assert "ovsegmentor-vitb16-bert  (ovsegmentor, not here)" in out
    assert "published mIoU: voc 53.8, context 20.4, coco-object 25.1, ade20k 5.6" in out
    assert "non-commercial" in out


def test_list_for_scripts(capsys: pytest.CaptureFixture[str], own_cache: Path) -> None:
    assert run(["models", "list", "--json"]) == 0
    rows = {row["name"]: row for row in results(capsys)}
    assert rows["starter"]["cached"] and rows["starter"]["path"] is None
    row = rows["ovsegmentor-vits16-roberta"]
    assert not row["cached"] and row["scores"]["voc"] == 44.5
    assert row["path"] == str(own_cache / "models" / "ovsegmentor-vits16-roberta.safetensors")


def test_pull_announces_and_fetches_once(capsys: pytest.CaptureFixture[str], hub: Hub) -> None:
    assert run(["models", "list"]) == 0
    assert "tiny  (test, 512 kB, not here)" in capsys.readouterr().out
    assert run(["models", "pull", "tiny"]) == 0
    shown = capsys.readouterr()
    path = Path(shown.out.strip())
    assert path.read_bytes() == BODY
    assert (
        "downloading open_clip_model.safetensors of owner/tiny from the hub (512 kB)" in shown.err
    )
    asked = len(hub.asked)
    assert run(["models", "pull", "tiny", "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["path"] == str(path)
    assert shown.err == "" and len(hub.asked) == asked  # it is here: nothing to announce
    assert run(["models", "list"]) == 0
    assert "tiny  (test, 512 kB, here)" in capsys.readouterr().out


def test_pull_of_a_wrong_file_is_one_line(capsys: pytest.CaptureFixture[str], hub: Hub) -> None:
    hub.lie = True
    assert run(["models", "pull", "tiny"]) == 1
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "error" in line)
    assert line.startswith("ovseg: error: open_clip_model.safetensors: sha256 ")


def test_pull_offline_says_what_to_fetch_and_what_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, hub: Hub
) -> None:
    monkeypatch.setenv("OVSEG_OFFLINE", "1")
    assert run(["models", "pull", "tiny"]) == 1
    shown = capsys.readouterr().err
    assert "fetch https://huggingface.co/owner/tiny/resolve/main/open_clip_model" in shown
    assert "then put it where the hub's cache would have it" in shown
    assert hub.asked == []


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["pull", "startr"], 2, "did you mean starter?"),
        (["pull", "ovsegmentor-vitb16-bert"], 1, "ovseg models convert FILE.pth"),
        (["info", "nothing.pth"], 1, "nothing.pth: cannot be read: No such file"),
        (["info", "nothing"], 2, "there is no model or file called nothing"),
        (["convert", "nothing.pth", "x.safetensors"], 1, "nothing.pth: cannot be read"),
        (["convert", str(PARITY / "reference-a.pth"), "x.safetensors"], 2, "text.heads=N"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    code: int,
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["models", *arguments]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ovseg: error: ") and sentence in line


def test_every_wrong_key_has_its_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    wrong = ["--set", "model.image.widht=3", "--set", "model.image.binding=slto"]
    released = str(PARITY / "reference-a.pth")
    assert run(["models", "convert", released, str(tmp_path / "x"), *HEADS, *wrong]) == 2
    assert capsys.readouterr().err.splitlines() == [
        'ovseg: error: --set: model.image.binding = "slto": must be one of released, slot; '
        'did you mean "slot"?',
        "ovseg: error: --set: model.image.widht = 3: unknown key; did you mean model.image.width?",
    ]


def test_pull_of_what_is_built_in_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "pull", "starter"]) == 0
    assert "nothing to pull" in capsys.readouterr().out


def test_a_released_file_is_described_converted_and_described_again(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    released, out = str(PARITY / "reference-a.pth"), tmp_path / "ours.safetensors"
    assert run(["models", "info", released, "--json"]) == 0
    before = results(capsys)
    assert before["format"] == "released checkpoint" and before["tensors"] == 300
    assert before["model"]["image"]["depths"] == [2, 2]
    assert before["next"].startswith("ovseg models convert ")
    assert run(["models", "convert", released, str(out), *HEADS, "--json"]) == 0
    made = results(capsys)
    assert run(["models", "info", str(out), "--json"]) == 0
    after = results(capsys)
    assert after["format"] == "ovseg checkpoint" and after["intact"] is True
    assert after["content_hash"] == made["content_hash"]
    assert after["model"]["text"]["heads"] == 4
    assert after["tensors"] == made["tensors"] < before["tensors"]
    assert run(["models", "info", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "parameters: 1,583,196\n" in shown and "\n    group_tokens: 16\n" in shown
    assert "intact: yes" in shown


def test_a_rotten_checkpoint_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "ours.safetensors"
    assert run(["models", "convert", str(PARITY / "reference-a.pth"), str(out), *HEADS]) == 0
    data = bytearray(out.read_bytes())
    data[-9] ^= 4
    out.write_bytes(bytes(data))
    capsys.readouterr()
    assert run(["models", "info", str(out)]) == 0
    assert "intact: no" in capsys.readouterr().out


def test_an_attack_file_is_one_line_and_does_not_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    import os

    import torch

    class Runs:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    attack = tmp_path / "attack.pth"
    torch.save({"model": {}, "config": Runs()}, attack)
    for command in (["info", str(attack)], ["convert", str(attack), str(tmp_path / "x")]):
        assert run(["models", *command]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert "refused: it refers to" in line and "Nothing of it was run" in line
    assert not (tmp_path / "ran").exists() and not (tmp_path / "x").exists()


def test_a_released_file_without_torch_is_one_line() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; from ovseg_cli.__main__ import run;"
        f"sys.exit(run(['models', 'info', {str(PARITY / 'reference-a.pth')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "ovseg: error: reading a released checkpoint needs torch, which is not installed: "
        'pip install "ovseg[torch]"'
    ]


def test_info_of_the_starter_says_what_it_scores_and_where_its_card_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["models", "info", "starter"]) == 0
    out = capsys.readouterr().out
    (measured,) = re.findall(r"measured: (.*)", out)
    card = (ROOT / "ovseg/models/starter/MODEL_CARD.md").read_text(encoding="utf-8")
    figures = re.findall(r"\d+\.\d", measured)
    assert len(figures) == 4 and all(f" {figure} " in card for figure in figures)
    assert "training data: ImageNet-1k" in out
    assert "MODEL_CARD.md" in out
