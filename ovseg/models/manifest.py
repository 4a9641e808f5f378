"""`export.json`: what an exported folder says of itself, and where its files lie.

Written by whoever exports, and checked before anything of the folder is opened: it may have been
downloaded, so file names in it stay inside it, and sizes are bounded.
"""

import hashlib
import json
import math
import platform
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from ovseg.documents import Bounds, read_object
from ovseg.errors import ModelError
from ovseg.files import file_digest, sha256, write_text
from ovseg.models.interface import DenseReading, ModelCard, Preprocessing
from ovseg.models.taught.scoring import DOUBT
from ovseg.models.templates import is_template

MANIFEST = "export.json"  # what makes a folder an exported model
FORMAT_VERSION = 1
TOKENIZER = "tokenizer.json"
WORDS_FOLDER = "words"
PACKAGES = ("ovseg", "torch", "onnx", "onnxscript", "onnxruntime", "openvino", "tokenizers")
"""Those whose versions are written down where they are installed."""

Format = Literal["onnx", "onnx-int8", "torchscript", "torch-export", "openvino"]
Kind = Literal["starter", "ovsegmentor", "dense-clip", "aligned", "tipsv2", "dinotxt", "groupvit"]
Name = Annotated[str, Field(max_length=10_000)]
Number = Annotated[float, Field(ge=-1e6, le=1e6)]
Triple = tuple[Number, Number, Number]

SUFFIXES: dict[Format, str] = {
    "onnx": ".onnx",
    "onnx-int8": ".onnx",
    "torchscript": ".pt",
    "torch-export": ".pt2",
    "openvino": ".xml",
}
HUB_FOLDERS: dict[Format, str] = {
    "onnx": "onnx/",
    "onnx-int8": "onnx/",
    "torchscript": "torchscript/",
    "torch-export": "torch-export/",
    "openvino": "openvino/",
}

_BOUNDS = Bounds(size=4 << 20)
_MAX_FILES = 200  # an export has a dozen
_MAX_WINDOWS = 4_096  # of one image, which at the published strides has a dozen
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}(/[A-Za-z0-9_-][A-Za-z0-9._-]{0,99})?")


@dataclass(frozen=True)
class Layout:
    """Names of the graphs in the folder; `end_to_end` is None where it was not asked for."""

    image: str
    text: str
    end_to_end: str | None

    @classmethod
    def of(cls, format: Format, for_hub: bool, end_to_end: bool) -> "Layout":
        """Graphs lie in the folder itself, or for the hub in one named by the format."""
        folder, suffix = HUB_FOLDERS[format] if for_hub else "", SUFFIXES[format]
        whole = f"{folder}end_to_end{suffix}" if end_to_end else None
        return cls(f"{folder}image{suffix}", f"{folder}text{suffix}", whole)


class ManifestSection(BaseModel):
    """Base of every section: frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Card(ManifestSection):
    """The model's card; see `ModelCard`."""

    name: Name
    description: Name
    licence: Name
    content_hash: Annotated[str, Field(pattern="^[0-9a-f]{16,64}$")]


def _whole_template(text: str) -> str:
    if not is_template(text):
        raise ValueError("a template has one {} and no other braces")
    return text


class PixelRule(ManifestSection):
    """How images reach the graph; see `Preprocessing`."""

    mean: Triple
    std: Triple
    short_side: Annotated[int, Field(ge=1, le=2_048)]
    long_side: Annotated[int, Field(ge=1, le=8_192)]
    multiple_of: Annotated[int, Field(ge=1, le=1_024)]
    window: Annotated[int, Field(ge=0, le=8_192)]
    stride: Annotated[int, Field(ge=0, le=8_192)]
    resample: Literal["bilinear", "bicubic"] = "bilinear"
    cell: Annotated[int, Field(ge=1, le=1_024)]
    """Pixels from one position of the grid to the next."""
    stretches: bool = False
    """Whether the graph stretches sides between two positions to the next."""

    @field_validator("std")
    @classmethod
    def _divides(cls, values: Triple) -> Triple:
        if min(values) < 1e-6:
            raise ValueError("deviations must be positive")
        return values

    @model_validator(mode="after")
    def _fits_together(self) -> "PixelRule":
        if self.multiple_of % self.cell and not self.stretches:
            raise ValueError(f"cell {self.cell} does not divide multiple_of {self.multiple_of}")
        if not self.window:
            return self
        if not 0 < self.stride <= self.window:
            raise ValueError("the stride must be between 1 and the window's side")
        rows, columns = (
            math.ceil(side / self.stride) for side in (self.short_side, self.long_side)
        )
        if rows * columns > _MAX_WINDOWS:
            raise ValueError(f"{rows * columns} windows an image: at most {_MAX_WINDOWS}")
        return self

    @property
    def preprocessing(self) -> Preprocessing:
        """The same for a `Segmenter`."""
        return Preprocessing(**self.model_dump(exclude={"cell", "stretches"}))

    def grid(self, rows: int, columns: int) -> tuple[int, int]:
        """Positions of an image of so many pixels."""
        return -(-rows // self.cell), -(-columns // self.cell)


class PositionRule(ManifestSection):
    """How positions of a dense model are compared; see `DenseReading`."""

    scale: Number
    pad_to: Annotated[int, Field(ge=1, le=1_024)]
    background: Annotated[tuple[Name, ...], Field(max_length=1_000)]
    rule: Literal["probability", "constant"] = "probability"
    bias: Number = 0.0

    @property
    def dense_reading(self) -> DenseReading:
        """The same for a `Segmenter`."""
        return DenseReading(**self.model_dump())


class AlignedRule(ManifestSection):
    """How an aligned model's graphs are read; see `ReadingConfig`."""

    bias: float
    """Added to scaled cosines in front of the sigmoid."""
    clean: Annotated[float, Field(ge=0)]
    """Weight of what attention heads look at; 0 where the graph has none."""
    groups: bool
    """Whether words are compared with groups, not with positions."""
    align_corners: bool
    scales: tuple[Annotated[float, Field(gt=0, le=8)], ...] = (1.0,)
    """Sizes at which images are read, as multiples of `pixels.short_side`."""


class TaughtRule(ManifestSection):
    """What was taught: the last columns of embeddings; see `taught_scores`."""

    classes: Annotated[
        tuple[Annotated[tuple[Name, ...], Field(min_length=1)], ...],
        Field(min_length=1, max_length=65_000),
    ]
    text: Annotated[float, Field(ge=0, le=10)]
    stuff: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Places of classes that are background; see `scores_beside_stuff`."""
    doubt: Annotated[float, Field(ge=0, le=100)] = DOUBT
    """Of other words where masks find a taught class; see `taught_scores`."""

    @model_validator(mode="after")
    def _stuff_is_taught(self) -> "TaughtRule":
        if any(place >= len(self.classes) for place in self.stuff):
            raise ValueError("stuff must be places of taught classes")
        return self


class TextRule(ManifestSection):
    """How phrases become class embeddings: a graph behind a tokenizer."""

    graph: str
    tokenizer: str
    max_tokens: Annotated[int, Field(ge=2, le=8_192)]
    pad_id: Annotated[int, Field(ge=0, le=10_000_000)]


class FileEntry(ManifestSection):
    """A file of the folder."""

    bytes: int
    sha256: str


class Manifest(ManifestSection):
    """The whole of `export.json`: all that a runtime needs to know beside the graphs.

    Attributes:
        format: what the graphs are written as.
        kind: family of the model, which decides how groups and classes are scored.
        scale: what cosines are multiplied by before a softmax; 1 where there is none.
        embedding_width: C of class embeddings [K, C].
        image_graph, end_to_end_graph: files, by their name in the folder.
        text: None for a closed vocabulary, whose words lie in `words/`.
        aligned: what aligned models need beside; None for the others.
        taught: classes that were taught; None for other models.
        features: whether the image graph tells what positions of two images are compared by.
        stages: whether it tells what classes can be taught on.
        weights: whether it tells what counts at the positions of a finer grid than embeddings are
            of.
        opset: of ONNX graphs; None for other formats.
        versions: of the packages that wrote the files.
        gate: what was measured when the files were read back; not read here.
    """

    format_version: int
    format: Format
    kind: Kind
    card: Card
    pixels: PixelRule
    templates: Annotated[
        tuple[Annotated[Name, AfterValidator(_whole_template)], ...],
        Field(min_length=1, max_length=1_000),
    ]
    threshold: Number
    scale: Number
    embedding_width: Annotated[int, Field(ge=1, le=65_536)]
    image_graph: str
    end_to_end_graph: str | None = None
    text: TextRule | None = None
    reading: PositionRule | None = None
    aligned: AlignedRule | None = None
    taught: TaughtRule | None = None
    features: bool = False
    stages: bool = False
    weights: bool = False
    opset: int | None = None
    quantisation: str = ""
    versions: dict[str, str] = {}
    files: dict[str, FileEntry] = {}
    gate: dict[str, Any] = {}

    def model_card(self, where: Path, content_hash: str = "") -> ModelCard:
        """The card under the name it is asked for by; the hash it claims, unless one is given."""
        card = self.card
        found = content_hash or card.content_hash
        return ModelCard(str(where), self.kind, card.description, card.licence, found)


def read_manifest(folder: Path) -> Manifest:
    """Read and check `export.json`.

    Raises:
        ModelError: it is missing, damaged, of a newer format, or names files outside the folder.
    """
    path = folder / MANIFEST
    try:
        values = read_object(path, _BOUNDS, ModelError)
    except ModelError as error:
        raise ModelError(f"{error}; missing or damaged: export the model again") from None
    written_in = values.get("format_version")
    if not isinstance(written_in, int):
        raise ModelError(f"{path}: damaged: export the model again")
    if written_in != FORMAT_VERSION:
        raise ModelError(f"{path}: written in format {written_in} by a newer ovseg: update ovseg")
    try:
        manifest = Manifest.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ModelError(f"{path}: {key}: {first['msg']}") from None
    for name in _named_files(manifest):
        if not _PLAIN_NAME.fullmatch(name):
            raise ModelError(f"{path}: refused: {name[:100]!r} does not lie in the folder")
        if not (folder / name).is_file():
            raise ModelError(f"{folder}: incomplete: {name} is missing; export the model again")
    return manifest


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write `export.json`."""
    values = manifest.model_dump(mode="json")
    for younger in ("aligned", "taught", "features", "stages", "weights"):  # keys than the format
        if not values[younger]:
            del values[younger]
    if not manifest.pixels.stretches:
        del values["pixels"]["stretches"]
    write_text(folder / MANIFEST, json.dumps(values, indent=2, ensure_ascii=False))


def list_files(folder: Path, names: Collection[str] | None = None) -> dict[str, FileEntry]:
    """The files of a folder by name, or those among `names` if it holds others beside them."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    named = ((path.relative_to(folder).as_posix(), path) for path in found)
    return {
        name: FileEntry(bytes=path.stat().st_size, sha256=sha256(path))
        for name, path in named
        if names is None or name in names
    }


def content_hash(files: dict[str, FileEntry]) -> str:
    """Of every file, since all of them decide what the export answers."""
    listed = "\n".join(f"{name} {file.sha256}" for name, file in sorted(files.items()))
    return hashlib.sha256(listed.encode()).hexdigest()


def folder_hash(folder: Path) -> str:
    """Of all that lies in an exported folder, as it is here, whatever its description claims.

    Raises:
        ModelError: it holds more files than any export, or one cannot be read.
    """
    found = []
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.startswith("."):
            found.append(name)
        if len(found) > _MAX_FILES:
            raise ModelError(f"{folder}: holds more than the files of an export")
    try:
        listed = "\n".join(f"{name} {file_digest(folder / name)}" for name in sorted(found))
    except OSError as error:
        raise ModelError(f"{folder}: cannot be read: {error.strerror or error}") from error
    return hashlib.sha256(listed.encode(errors="surrogateescape")).hexdigest()


def installed_versions() -> dict[str, str]:
    """Versions of Python and of the packages that take part in an export, where they are there."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _named_files(manifest: Manifest) -> list[str]:
    text = [manifest.text.graph, manifest.text.tokenizer] if manifest.text else []
    whole = [manifest.end_to_end_graph] if manifest.end_to_end_graph else []
    return [manifest.image_graph, *whole, *text]
