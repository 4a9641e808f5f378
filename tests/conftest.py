"""What all tests share."""

import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the cores; before torch is imported, or it takes all of them in each.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIETLY = (
    "no-sandbox disable-gpu disable-quic no-first-run disable-background-networking "
    "disable-component-update disable-sync "
    "use-fake-device-for-media-stream use-fake-ui-for-media-stream"  # a camera
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has a cache folder of its own and leaves the user's alone."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("OVSEG_CACHE", str(folder))
    return folder


@pytest.fixture(autouse=True)
def own_logger() -> Iterator[None]:
    """The command line sets the library's logger up for its process; here it is every test's."""
    logger = logging.getLogger("ovseg")
    handlers, propagates = list(logger.handlers), logger.propagate
    yield
    logger.handlers[:], logger.propagate = handlers, propagates


@pytest.fixture(scope="session")
def chelsea() -> Path:
    """The sample photo: a cat whose face fills the middle, in front of a wall."""
    return ROOT / "examples" / "chelsea.png"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A Chromium that is there, driven by playwright; asks for nothing by itself."""
    playwright = pytest.importorskip("playwright.sync_api")
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    with playwright.sync_playwright() as driver:
        options = [f"--{name}" for name in QUIETLY.split()]
        browser = driver.chromium.launch(executable_path=found, args=options)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def shared() -> Path:
    """A folder of real data beside the checkout, for tests that can do without."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("no folder of shared data beside the checkout")
    return folder
