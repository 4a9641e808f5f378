"""What people install: a wheel that segments without torch, on every interpreter that is here."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PHOTO = ROOT / "examples" / "chelsea.png"
LOWEST, HIGHEST = ("3.10",), ("3.14", "3.13", "3.12")
SEGMENT = ("segment", str(PHOTO), "--classes", "cat,dog", "--json")

pytestmark = pytest.mark.slow


def run(*command: object, folder: Path | None = None, **environment: str) -> str:
    """What a command prints; skips where it needs a registry of packages and reaches none."""
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, **environment},
    )
    if "error sending request" in done.stderr or "dns error" in done.stderr:
        pytest.skip("no registry of packages can be reached")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = pytest.importorskip("hatchling.builders.wheel").WheelBuilder(str(ROOT))
    (path,) = built.build(directory=str(tmp_path_factory.mktemp("dist")), versions=["standard"])
    return Path(path)


@pytest.fixture(scope="module")
def uv() -> str:
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.is_file() else shutil.which("uv")
    if found is None:
        pytest.skip("uv is not installed")
    return found


def interpreter(uv: str, versions: tuple[str, ...]) -> str:
    """The first of some versions of Python that is on this machine."""
    for version in versions:
        command = [uv, "python", "find", "--no-python-downloads", "--no-project", version]
        found = subprocess.run(command, capture_output=True, text=True, cwd="/")
        if found.returncode == 0:
            return found.stdout.strip()
        pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
        if several := sorted(pyenv.glob(f"{version}.*/bin/python")):
            return str(several[-1])
    pytest.skip(f"no Python {' or '.join(versions)} on this machine")


def installed(uv: str, python: str, what: object, folder: Path) -> Path:
    """A new environment with something in it, from a registry."""
    run(uv, "venv", "-q", "--python", python, folder)
    run(uv, "pip", "install", "-q", "--python", folder / "bin" / "python", what)
    return folder


def check_found_cat(output: str) -> None:
    assert json.loads(output)["classes"][0]["name"] == "cat"


def metadata_of(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_bytes(archive.read(name))


def test_the_wheel_is_small_and_whole(wheel: Path) -> None:
    assert wheel.stat().st_size < 60e6
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {"ovseg/py.typed", "ovseg/config/recipes/cc4m.toml", "ovseg_cli/app.py"} <= set(names)
    assert [name for name in names if name.startswith(("tests", "docs", "tools"))] == []


def test_what_is_installed_segments_and_brings_no_torch(wheel: Path) -> None:
    said = metadata_of(wheel)
    assert said["Requires-Python"] == ">=3.10", "no upper end without a reason"
    plain = [line for line in said.get_all("Requires-Dist") or [] if "extra ==" not in line]
    assert any(line.startswith("onnxruntime") for line in plain)
    assert not any(line.startswith(("torch", "timm", "transformers")) for line in plain)
    assert said.get_all("Project-URL") and len(said.get_all("Classifier") or []) > 10


def test_it_segments_on_the_lowest_python(wheel: Path, uv: str, tmp_path: Path) -> None:
    folder = installed(uv, interpreter(uv, LOWEST), wheel, tmp_path / "env")
    check_found_cat(run(folder / "bin" / "ovseg", *SEGMENT))
    assert "torch" not in {path.name for path in folder.glob("lib/*/site-packages/*")}
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert size < 500e6


def test_uvx_runs_it_on_the_highest_python(wheel: Path, uv: str) -> None:
    python = interpreter(uv, HIGHEST)
    command = (uv, "tool", "run", "--python", python, "--from", wheel, "ovseg")
    check_found_cat(run(*command, *SEGMENT))


def instructions() -> list[tuple[str, str]]:
    """Of the Dockerfile: each with its arguments."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines]


def test_the_image_runs_as_nobody_and_writes_nowhere() -> None:
    said = instructions()
    assert [value for name, value in said if name == "USER"] == ["10001:10001"]
    environment = dict(value.split("=", 1) for name, value in said if name == "ENV")
    assert environment["OVSEG_CACHE"].startswith("/tmp/")
    assert said[-2] == ("ENTRYPOINT", '["ovseg"]')
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    for name, value in said:
        if name == "COPY" and not value.startswith("--from"):
            *sources, _ = value.split()
            assert all((ROOT / source).exists() and f"!{source}" in ignored for source in sources)


def test_the_steps_of_the_image_build_what_segments(uv: str, tmp_path: Path) -> None:
    """Without an engine: the steps of the first stage in a folder, and what they made, run."""
    source, target = tmp_path / "src", tmp_path / "opt"
    source.mkdir()
    commands = []
    for name, value in instructions():
        if name == "COPY" and not value.startswith("--from"):
            *copied, place = value.split()
            for each in copied:
                if (ROOT / each).is_dir():
                    skipped = shutil.ignore_patterns("__pycache__")
                    shutil.copytree(ROOT / each, source / place, ignore=skipped)
                else:
                    shutil.copy(ROOT / each, source / place)
        elif name == "RUN":
            commands.append(value.replace("/opt/", f"{target}/"))
    assert commands[0] == "pip install --no-cache-dir uv", "which is here"
    path = f"{Path(uv).parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    for command in commands[1:]:
        faster = command.replace(" --compile-bytecode", "")
        run("sh", "-c", faster, folder=source, PATH=path)
    nowhere = {"HOME": "/nonexistent", "OVSEG_CACHE": "/proc/none", "PYTHONPATH": ""}
    check_found_cat(run(*read_only(), target / "ovseg" / "bin" / "ovseg", *SEGMENT, **nowhere))


def read_only() -> list[str]:
    """What makes a command see a file system that it cannot write; nothing where that is denied."""
    mounts = 'mount --bind / / && mount -o remount,ro,bind / && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", mounts, "sh"]
    if shutil.which("unshare") is None:
        return []
    tried = subprocess.run([*command, "touch", str(ROOT / ".probe")], capture_output=True)
    return command if b"Read-only" in tried.stderr else []
