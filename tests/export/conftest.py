"""Exports that several tests look at, written once."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="exporting needs onnx")
pytest.importorskip("onnxruntime", reason="exporting needs onnxruntime")

from filelock import FileLock

from ovseg.export.export import ExportOptions, ExportResult, export_loaded
from ovseg.models.starter.model import StarterModel
from tests.conftest import ROOT
from tests.export.models import tiny_predictor

ONE = (ROOT / "examples" / "chelsea.png",)
"""One photo, to save time."""


@pytest.fixture(scope="session", autouse=True)
def session_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fixtures of the session, too, leave the user's cache alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OVSEG_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def starter_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in model as ONNX, laid out for the hub, with its graph for whole photos.

    It takes a minute, so it is written once for all workers, by the first that asks.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "starter-export"
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            options = ExportOptions(images=ONE, end_to_end=True, hub_layout=True)
            export_loaded(StarterModel(), folder, options)
    return folder


@pytest.fixture(scope="session")
def tiny_export(tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    """A tiny OVSegmentor as ONNX."""
    folder = tmp_path_factory.mktemp("tiny") / "export"
    return export_loaded(tiny_predictor(), folder, ExportOptions(images=ONE))


@pytest.fixture
def tiny_folder(tiny_export: ExportResult) -> Path:
    """Where the tiny OVSegmentor was exported to."""
    return tiny_export.folder
