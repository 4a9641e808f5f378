"""Data that several test files train on."""

from pathlib import Path

import pytest

from tests.training.scenes import make_scenes


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 pairs in two shards."""
    return make_scenes(tmp_path_factory.mktemp("scenes") / "data")
