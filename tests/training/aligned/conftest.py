"""Photos with several captions each."""

from pathlib import Path

import pytest

from tests.training.scenes import make_scenes


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 photos in two shards, three captions each."""
    return make_scenes(tmp_path_factory.mktemp("photos") / "data", pairs=40, captions=3)
