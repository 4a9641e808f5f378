"""What a model is, told without loading it; of our own files without torch."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ovseg.config.dump import to_values
from ovseg.config.schema import ModelConfig
from ovseg.errors import ModelError
from ovseg.files import file_digest
from ovseg.models.aligned.projections import LICENCE, REPOSITORY
from ovseg.models.aligned.talk2dino import is_projection, tower_of
from ovseg.models.catalogue import Entry
from ovseg.models.checkpoint import ALIGNED, content_is_intact, read_info
from ovseg.models.ovsegmentor.released import released_checkpoint
from ovseg.models.ovsegmentor.released_config import released_model_values
from ovseg.models.registry import find_entry, is_cached, local_file
from ovseg.models.taught.file import is_taught, read_note
from ovseg.models.tensor_files import read_header
from ovseg.models.torch_file import TorchFile, read_torch_file


@dataclass(frozen=True)
class FileDescription:
    """What a file holds.

    Attributes:
        format: "ovseg checkpoint" or "released checkpoint".
        model_class: whose state it is.
        size: bytes of the file.
        tensors, parameters: how many of the model's; other state in the file is not counted.
        model: the `[model]` section it fits; for released files what they tell of it.
        version: of ovseg that wrote it, or an empty string.
        licence, description: as written in it, or empty strings.
        tokenizer: name and revision, or an empty string.
        has_tokenizer: whether the tokenizer itself is in the file.
        content_hash: SHA-256 of the content, or an empty string where the format has none.
        intact: whether the content has that hash; None where the format has none.
        next: what to do with a file that cannot be used as it is, or an empty string.
    """

    format: str
    model_class: str
    size: int
    tensors: int
    parameters: int
    model: dict[str, Any]
    version: str = ""
    licence: str = ""
    description: str = ""
    tokenizer: str = ""
    has_tokenizer: bool = False
    content_hash: str = ""
    intact: bool | None = None
    next: str = ""


def describe(model: str) -> dict[str, Any]:
    """What a model's file, or the catalogue under its name, says of it, in plain values.

    Raises:
        UsageError: neither a file nor a name that is known.
        ModelError: as `describe_file`.
    """
    path = Path(model)
    if path.exists() or path.suffix:
        return {"path": str(path), **asdict(describe_file(path))}
    return describe_entry(find_entry(model))


def describe_entry(entry: Entry) -> dict[str, Any]:
    """What is known of a model with a name, and whether it is here, in plain values."""
    path = local_file(entry)
    return {
        "name": entry.name,
        "kind": entry.kind,
        "description": entry.description,
        "size": entry.size,
        "licence": entry.licence,
        "source": entry.source,
        "scores": dict(entry.scores),
        **entry.facts,
        "cached": is_cached(entry),
        "path": str(path) if path else None,
    }


def describe_file(path: Path) -> FileDescription:
    """Describe a checkpoint of ours, or a released one.

    Raises:
        ModelError: neither of them, damaged, or made to run code.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(4)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from None
    if path.suffix == ".safetensors" and is_taught(path):
        return _describe_taught(path)
    is_pickled = start[:2] == b"PK" or start[:1] == b"\x80" or path.suffix in (".pth", ".pt")
    return _describe_released(path) if is_pickled else _describe_ours(path)


def _describe_taught(path: Path) -> FileDescription:
    note, tensors = read_note(path), read_header(path).tensors.values()
    return FileDescription(
        format="taught model",
        model_class="TaughtModel",
        size=path.stat().st_size,
        tensors=len(tensors),
        parameters=sum(math.prod(entry.shape) for entry in tensors if entry.dtype == "F32"),
        model={
            "base": note.base,
            "classes": [each[0] for each in note.classes],
            "stuff": list(note.stuff),
            "text": note.text,
            "recipe": note.recipe,
            "data": note.data,
            "held out": note.held_out,
        },
        version=note.version,
        licence=note.licence,
        description=note.description,
        content_hash=file_digest(path),
    )


def _describe_ours(path: Path) -> FileDescription:
    info = read_info(path)
    text = info.recipe.model.text
    name = info.tokenizer.name if info.tokenizer else text.tokenizer_name
    revision = info.tokenizer.revision if info.tokenizer else text.revision
    return FileDescription(
        format="ovseg checkpoint",
        model_class=info.model_class,
        size=path.stat().st_size,
        tensors=len(info.tensors),
        parameters=info.parameters,
        model=_used(info.recipe.model),
        version=info.version,
        licence=info.licence,
        description=info.description,
        tokenizer=f"{name}@{revision}" if name else "",
        has_tokenizer=info.tokenizer is not None,
        content_hash=info.content_hash,
        intact=content_is_intact(path),
    )


def _describe_released(path: Path) -> FileDescription:
    file = read_torch_file(path)
    return _describe_projection(file) if is_projection(file) else _describe_checkpoint(file)


def _describe_projection(file: TorchFile) -> FileDescription:
    path, tensors = file.path, file.tensors(file.content)
    tower = tower_of(path)
    for_tower = "" if tower else " --set model.aligned.vision.tower=NAME"
    return FileDescription(
        format="released projection",
        model_class=ALIGNED,
        size=path.stat().st_size,
        tensors=len(tensors),
        parameters=sum(tensor.numel() for tensor in tensors.values()),
        model={"vision": tower or "not told by the file"},
        licence=LICENCE,
        description=f"Talk2DINO's, from CLIP's texts to DINO's patches ({REPOSITORY})",
        next=f"ovseg models convert {path} {path.with_suffix('.safetensors')}{for_tower}",
    )


def _describe_checkpoint(file: TorchFile) -> FileDescription:
    released, path = released_checkpoint(file), file.path
    trained = f", {released.epoch} epochs" if released.epoch is not None else ""
    return FileDescription(
        format="released checkpoint",
        model_class="OVSegmentor",
        size=path.stat().st_size,
        tensors=len(released.tensors),
        parameters=sum(tensor.numel() for tensor in released.tensors.values()),
        model=_without_unknowns(released_model_values(released)),
        description=f"as its authors saved it, with its momentum encoder{trained}",
        next=f"ovseg models convert {path} {path.with_suffix('.safetensors')}",
    )


def _used(model: ModelConfig) -> dict[str, Any]:
    """The section without what an aligned model without a grouping leaves aside."""
    values = to_values(model)
    if model.aligned is None or model.aligned.grouping:
        return values
    unused = ("image", "entity", "projector_width")
    return {key: value for key, value in values.items() if key not in unused}


def _without_unknowns(values: dict[str, Any]) -> dict[str, Any]:
    """The values that are known, in the schema's order and plain JSON types."""
    known: dict[str, Any] = {}
    for key in ModelConfig.model_fields:
        value = values.get(key)
        if isinstance(value, dict):
            known[key] = {name: inner for name, inner in value.items() if inner is not None}
        elif value is not None:
            known[key] = value
    return known
