"""What an installation is said to have and to lack."""

import json
from importlib import metadata
from pathlib import Path

import pytest

from ovseg import doctor
from ovseg_cli.__main__ import run

REQUIREMENTS = [
    "numpy>=1.26",
    "no-such-package>=1",
    'tomli>=2.0; python_version < "3"',
    'torch>=2.6; extra == "torch"',
    'ovseg[torch]; extra == "train"',
    'numpy>=999; extra == "train"',
]


def found(topic: str) -> dict[str, doctor.Finding]:
    return {each.name: each for each in doctor.examine() if each.topic == topic}


def test_this_installation_is_sound(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)
    assert {"versions", "packages", "devices", "caches", "models", "extras"} == {
        each["topic"] for each in findings
    }
    assert run(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "starter" in out and "labels an image" in out


def test_what_is_missing_or_too_old_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(metadata, "requires", lambda _: REQUIREMENTS)
    packages, extras = found("packages"), found("extras")
    assert set(packages) == {"numpy", "no-such-package"}
    assert packages["no-such-package"].state == "broken"
    assert extras["train"].state == "broken"
    assert "where >=999 is needed" in extras["train"].detail
    assert run(["doctor"]) == 1
    assert "! no-such-package" in capsys.readouterr().out


def test_what_an_extra_would_add(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ['no-such-package>=1; extra == "torch"', 'ovseg[torch]; extra == "train"']
    monkeypatch.setattr(metadata, "requires", lambda _: lines)
    extra = found("extras")["train"]
    assert extra.state == "absent"
    assert extra.detail == 'pip install "ovseg[train]" would add no-such-package'


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVSEG_CACHE", str(tmp_path / "cache"))
    assert found("caches")["downloads"].state == "ok"
    monkeypatch.setattr("os.access", lambda *_: False)
    assert "set OVSEG_CACHE" in found("caches")["downloads"].detail


def test_a_broken_model_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from ovseg.errors import ModelError
    from ovseg.inference.segmenter import Segmenter

    def fail(*_: object) -> None:
        raise ModelError("weights.npz: damaged")

    monkeypatch.setattr(Segmenter, "from_pretrained", fail)
    assert found("models")["starter"].detail == "weights.npz: damaged"
