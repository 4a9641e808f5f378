"""Requests made up from the service's own description find no fault of it."""

import io
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from PIL import Image

from ovseg.serving.limits import Limits
from ovseg.serving.service import service
from tests.serving.conftest import QuickModel

schemathesis = pytest.importorskip("schemathesis")

PHRASES = ("cat", "Cat,dogs", "sofa;couch", "red car,sky,x", "okapi", "@a.txt, T-shirt", "ключ")


class QuickestModel(QuickModel):
    side = 32


def image(mode: str, size: tuple[int, int]) -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size, 1).save(stream, "PNG")
    return stream.getvalue()


IMAGES = [image("1", (1, 1)), image("L", (40, 1)), image("RGB", (24, 36)), image("P", (9, 9))]
# JSON schema has no words for what an image is, or for phrases: media type and format name them.
schemathesis.openapi.media_type(
    "image/*", st.sampled_from(IMAGES), aliases=["application/octet-stream"]
)
schemathesis.openapi.format("phrases", st.sampled_from(PHRASES))
SCHEMA = schemathesis.openapi.from_asgi(
    "/openapi.json", service(QuickestModel("cpu"), Limits(body=100_000))
)


@SCHEMA.parametrize()
@settings(
    max_examples=10,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_what_fits_the_description_is_answered_and_nothing_else(case: Any) -> None:
    """No description can say that classes are needed in one of two places."""
    form = case.body if isinstance(case.body, dict) else {}
    if "classes" not in {**(case.query or {}), **form}:
        case.query = {**(case.query or {}), "classes": "cat"}
    case.call_and_validate()
