"""What a service answers: a segmentation as JSON, run lengths, a label map or a picture."""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from ovseg.inference.result import Segmentation
from ovseg.models.interface import PartlyKnown, UnknownPhrase
from ovseg.serving.question import Kind

JSON, PNG = "application/json", "image/png"


@dataclass(frozen=True)
class Doubts:
    """What the model does not know of the words that were asked for."""

    unknown: Sequence[UnknownPhrase] = ()
    partly: Sequence[PartlyKnown] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "unknown": [
                {"phrase": each.phrase, "nearest": list(each.nearest)} for each in self.unknown
            ],
            "partly_known": [
                {"phrase": each.phrase, "understood": each.understood} for each in self.partly
            ],
        }


def wanted(format: Kind | None, accept: str) -> Kind:
    """The form of the answer: as it is named, or as the header `Accept` asks."""
    if format is not None:
        return format
    first = accept.partition(",")[0].partition(";")[0].strip().lower()
    return "png" if first in (PNG, "image/*") else "json"


def encoded(found: Segmentation, doubts: Doubts, kind: Kind, instances: bool) -> tuple[bytes, str]:
    """The answer's bytes and their type."""
    if kind == "png":
        return _as_png(found.label_image()), PNG
    regions = found.regions(instances) if instances else None
    if kind == "overlay":
        return _as_png(found.overlay(regions=regions)), PNG
    if kind == "rle":
        return json.dumps(found.to_coco(regions=regions)).encode(), JSON
    return json.dumps({**found.summary(regions), **doubts.as_json()}).encode(), JSON


def _as_png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=3)
    return stream.getvalue()
