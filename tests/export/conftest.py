"""Exports that several tests look at, written once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="exporting needs onnx")
pytest.importorskip("onnxruntime", reason="exporting needs onnxruntime")

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
def starter_export(tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    """The built-in model as ONNX, laid out for the hub, with its graph for whole photos."""
    folder = tmp_path_factory.mktemp("starter") / "export"
    options = ExportOptions(images=ONE, end_to_end=True, hub_layout=True)
    return export_loaded(StarterModel(), folder, options)


@pytest.fixture(scope="session")
def tiny_export(tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    """A tiny OVSegmentor as ONNX."""
    folder = tmp_path_factory.mktemp("tiny") / "export"
    return export_loaded(tiny_predictor(), folder, ExportOptions(images=ONE))


@pytest.fixture
def starter_folder(starter_export: ExportResult) -> Path:
    """Where the built-in model was exported to."""
    return starter_export.folder


@pytest.fixture
def tiny_folder(tiny_export: ExportResult) -> Path:
    """Where the tiny OVSegmentor was exported to."""
    return tiny_export.folder
