"""`export.json`: what an exported folder says of itself, checked before anything is opened.

The folder may have been downloaded: file names in it stay inside it, and sizes are bounded.
"""

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ovseg.errors import ModelError
from ovseg.models.interface import DenseReading, ModelCard, Preprocessing

EXPORT_DESCRIPTION = "export.json"  # what makes a folder an exported model
FORMAT_VERSION = 1

Format = Literal["onnx", "onnx-int8", "torchscript", "torch-export", "openvino"]
Kind = Literal["starter", "ovsegmentor", "dense-clip"]
Triple = tuple[float, float, float]

_MAX_BYTES = 4 << 20
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)?")


class Part(BaseModel):
    """Base of every part: frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Card(Part):
    """The model's card; see `ModelCard`."""

    name: str
    description: str
    licence: str
    content_hash: Annotated[str, Field(pattern="^[0-9a-f]{16,64}$")]


class Pixels(Part):
    """How images reach the graph; see `Preprocessing`."""

    mean: Triple
    std: Triple
    short_side: Annotated[int, Field(ge=1, le=65_536)]
    long_side: Annotated[int, Field(ge=1, le=65_536)]
    multiple_of: Annotated[int, Field(ge=1, le=4_096)]
    window: Annotated[int, Field(ge=0, le=65_536)]
    stride: Annotated[int, Field(ge=0, le=65_536)]
    cell: Annotated[int, Field(ge=1, le=4_096)]
    """Pixels from one position of the grid to the next."""

    @field_validator("std")
    @classmethod
    def _divides(cls, values: Triple) -> Triple:
        if min(values) <= 0:
            raise ValueError("deviations must be positive")
        return values

    @property
    def preprocessing(self) -> Preprocessing:
        """The same for a `Segmenter`."""
        return Preprocessing(**self.model_dump(exclude={"cell"}))


class Reading(Part):
    """How positions of a dense model are compared; see `DenseReading`."""

    scale: float
    pad_to: Annotated[int, Field(ge=1, le=4_096)]
    background: tuple[str, ...]

    @property
    def dense_reading(self) -> DenseReading:
        """The same for a `Segmenter`."""
        return DenseReading(**self.model_dump())


class Text(Part):
    """How phrases become class embeddings: a graph behind a tokenizer."""

    graph: str
    tokenizer: str
    max_tokens: Annotated[int, Field(ge=2, le=65_536)]
    pad_id: Annotated[int, Field(ge=0)]


class File(Part):
    """A file of the folder."""

    bytes: int
    sha256: str


class Description(Part):
    """All that a runtime needs to know beside the graphs.

    Attributes:
        format: what the graphs are written as.
        kind: family of the model, which decides how groups and classes are scored.
        scale: what cosines are multiplied by before a softmax; 1 where there is none.
        embedding_width: C of class embeddings [K, C].
        image_graph, end_to_end_graph: files, by their name in the folder.
        text: None for a closed vocabulary, whose words lie in `words/`.
        opset: of ONNX graphs; None for other formats.
        versions: of the packages that wrote the files.
        gate: what was measured when the files were read back; not read here.
    """

    format_version: int
    format: Format
    kind: Kind
    card: Card
    pixels: Pixels
    templates: tuple[str, ...]
    threshold: float
    scale: float
    embedding_width: Annotated[int, Field(ge=1, le=1_000_000)]
    image_graph: str
    end_to_end_graph: str | None = None
    text: Text | None = None
    reading: Reading | None = None
    opset: int | None = None
    quantisation: str = ""
    versions: dict[str, str] = {}
    files: dict[str, File] = {}
    gate: dict[str, Any] = {}

    def model_card(self, where: Path) -> ModelCard:
        """The card under the name it is asked for by."""
        return ModelCard(
            str(where), self.kind, self.card.description, self.card.licence, self.card.content_hash
        )


def read_description(folder: Path) -> Description:
    """Read and check `export.json`.

    Raises:
        ModelError: it is missing, damaged, of a newer format, or names files outside the folder.
    """
    path = folder / EXPORT_DESCRIPTION
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ModelError(f"{path}: too large to be the description of an export")
        values = json.loads(path.read_text(encoding="utf-8"))
        version = values["format_version"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise ModelError(f"{path}: missing or damaged: export the model again") from None
    if version != FORMAT_VERSION:
        raise ModelError(f"{path}: written in format {version} by a newer ovseg: update ovseg")
    try:
        described = Description.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ModelError(f"{path}: {key}: {first['msg']}") from None
    for name in _named_files(described):
        if not _PLAIN_NAME.fullmatch(name):
            raise ModelError(f"{path}: refused: {name!r} does not lie in the folder")
        if not (folder / name).is_file():
            raise ModelError(f"{folder}: incomplete: {name} is missing; export the model again")
    return described


def _named_files(described: Description) -> list[str]:
    text = [described.text.graph, described.text.tokenizer] if described.text else []
    whole = [described.end_to_end_graph] if described.end_to_end_graph else []
    return [described.image_graph, *whole, *text]
