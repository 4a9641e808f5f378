"""One service with the built-in model, for all tests here."""

import io
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from ovseg.data.images import Pixels
from ovseg.models.exported import BuiltInModel
from ovseg.models.interface import Preprocessing
from tests.conftest import ROOT

testclient = pytest.importorskip("starlette.testclient", reason="the extra serve is not here")


class QuickModel(BuiltInModel):
    """The built-in model on smaller images, in a tenth of the time."""

    side = 128

    @property
    def preprocessing(self) -> Preprocessing:
        return replace(super().preprocessing, short_side=self.side)


@pytest.fixture(scope="session")
def small() -> Pixels:
    """The sample photo, much smaller, so that it is read quickly."""
    with Image.open(ROOT / "examples" / "chelsea.png") as image:
        return np.asarray(image.convert("RGB").resize((96, 64)))


@pytest.fixture(scope="session")
def photo(small: Pixels) -> bytes:
    """The same as a file."""
    stream = io.BytesIO()
    Image.fromarray(small).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="package")
def client() -> Iterator["testclient.TestClient"]:
    from ovseg.serving.limits import Limits
    from ovseg.serving.service import service

    app = service(QuickModel("cpu"), Limits(body=200_000, pixels=100_000, phrases=50))
    with testclient.TestClient(app) as client:
        yield client
