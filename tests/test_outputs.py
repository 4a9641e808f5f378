"""Every command that writes refuses an output where another run is at work, and an address."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ovseg.data.cutouts.build import build_cutouts
from ovseg.data.cutouts.request import CutoutsRequest
from ovseg.data.store import FolderStore, RemoteStore
from ovseg.errors import UsageError
from ovseg.evaluation.evaluate import holding_outputs
from ovseg.inference.result_folder import ResultFolder, Saving
from ovseg.locks import holding, holding_file
from ovseg.models.released_files import convert_released


@contextmanager
def segment(output: Path) -> Iterator[None]:
    with ResultFolder(output, Saving(), ()).run():
        yield


@contextmanager
def evaluate_to_file(output: Path) -> Iterator[None]:
    with holding_outputs(save=output):
        yield


@contextmanager
def report(output: Path) -> Iterator[None]:
    with holding_outputs(report=output):
        yield


@contextmanager
def convert(output: Path) -> Iterator[None]:
    convert_released(Path("no-such.pth"), output)
    yield


@contextmanager
def export(output: Path) -> Iterator[None]:
    pytest.importorskip("onnx")
    from ovseg.export.export import replacing_folder

    with replacing_folder(output):
        yield


@contextmanager
def cutouts(output: Path) -> Iterator[None]:
    build_cutouts(CutoutsRequest(Path("none"), Path("none"), output, 1))
    yield


@contextmanager
def build(output: Path) -> Iterator[None]:
    with FolderStore(output).begin():
        yield


REFUSED = "out: another run is at work here"

FOLDERS = [segment, report, build]
FILES = [evaluate_to_file, convert, export, cutouts]


@pytest.mark.parametrize("command", FOLDERS)
def test_a_folder_in_use_is_refused(command: Callable, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with holding(output), pytest.raises(UsageError, match=REFUSED), command(output):
        pass


@pytest.mark.parametrize("command", FILES)
def test_what_is_replaced_as_a_whole_is_refused(command: Callable, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with holding_file(output), pytest.raises(UsageError, match=REFUSED), command(output):
        pass


@pytest.mark.parametrize("command", [segment, evaluate_to_file, report, convert, export, cutouts])
@pytest.mark.parametrize("address", ["s3://bucket/out", "a\0b"])
def test_an_address_is_no_folder_of_that_name(
    command: Callable, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError), command(Path(address)):
        pass
    assert [path.name for path in tmp_path.iterdir()] == []


def test_a_place_that_cannot_be_held_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with RemoteStore("memory://bucket/data").begin():
        assert "memory://bucket/data: nothing can be locked here" in caplog.text


def test_an_export_that_a_killed_run_took_away_is_put_back(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    from ovseg.export.export import replacing_folder

    for name in (".out.ovseg-abcdefgh.former", ".out.ovseg-ijklmnop.new", ".out.settings"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    with pytest.raises(RuntimeError), replacing_folder(tmp_path / "out"):
        raise RuntimeError
    assert {path.name for path in tmp_path.iterdir()} == {"out", ".out.settings"}
    assert (tmp_path / "out" / ".out.ovseg-abcdefgh.former").exists()
