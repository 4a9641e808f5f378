"""Files of taught models: one safetensors file with all that the model needs.

Its tensors are the head's, the factors of its tower's updates where there are any, and where the
base is a checkpoint that checkpoint's bytes; a base that is built in or has a name is named, and
has the updates written into its weights when it is loaded. What was taught, on which data and with
what success stands in the metadata, as JSON, which is read without torch.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ovseg.documents import Bounds, fit, parse_object
from ovseg.errors import ModelError, OvsegError
from ovseg.files import cache_folder, file_digest, replacing, sha256
from ovseg.models.interface import ModelCard, SegmentationModel
from ovseg.models.taught.factors import Updates, as_arrays, from_arrays
from ovseg.models.taught.head import LearnedHead, seen_in
from ovseg.models.taught.scoring import DOUBT
from ovseg.models.taught.taught_model import KIND, Taught, TaughtModel
from ovseg.models.tensor_files import read_arrays, read_header
from ovseg.version import __version__

NOTE = "ovseg.taught"
"""The metadata's key; it tells taught models from other files."""
FORMAT = 1
WITH_UPDATES = 2
"""The format of files with updates of a tower, which those who know none must not read."""
BUILT_IN = "starter"
_BASE = "base"
_BOUNDS = Bounds(size=16 << 20)


@dataclass(frozen=True)
class TeachingNote:
    """What a taught model's file says of itself.

    Attributes:
        base: the model that was taught: a name, or the name of the checkpoint that is in the file.
        base_hash: SHA-256 of its weights.
        classes: the phrases of each class.
        text: what the words of a class count beside its masks.
        stuff: names of the classes that are background.
        doubt: of other words where masks find a taught class.
        recipe: every setting of the teaching.
        data: name, folder's name, split, count of photos, and SHA-256 of photos and labels.
        held_out: scores on folds that were held out, 0..1.
        description, licence: of the model.
        version: of ovseg that wrote it.
    """

    base: str
    base_hash: str
    classes: tuple[tuple[str, ...], ...]
    text: float
    stuff: tuple[str, ...] = ()
    doubt: float = DOUBT
    recipe: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    held_out: dict[str, Any] = field(default_factory=dict)
    description: str = ""
    licence: str = ""
    version: str = __version__
    format: int = FORMAT


def is_taught(path: Path) -> bool:
    """Whether a safetensors file holds a taught model.

    Raises:
        ModelError: it cannot be read.
    """
    return NOTE in read_header(path).metadata


def read_note(path: Path) -> TeachingNote:
    """What the file says of itself; needs no torch.

    Raises:
        ModelError: no file of a taught model, damaged, or of a newer version.
    """
    values = parse_object(read_header(path).metadata.get(NOTE, ""), str(path), _BOUNDS, ModelError)
    if values.get("format") not in (FORMAT, WITH_UPDATES):
        raise ModelError(f"{path}: written by ovseg {values.get('version')}: update ovseg")
    return fit(TeachingNote, values, str(path), ModelError)


def write_taught(
    path: Path, note: TeachingNote, head: LearnedHead, base: Path | None, updates: Updates
) -> None:
    """Write a taught model, whole or not at all.

    Args:
        base: the checkpoint that was taught; None for a model that has a name.
        updates: of the base's tower.

    Raises:
        ModelError: it cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    tensors = {
        each.name: np.ascontiguousarray(getattr(head, each.name), np.float32)
        for each in fields(head)
    }
    if base is not None:
        tensors[_BASE] = np.fromfile(base, np.uint8)
    if updates:
        note = replace(note, format=WITH_UPDATES)
        tensors |= as_arrays(updates)
    try:
        with replacing(path) as temporary:
            save_file(tensors, temporary, {NOTE: json.dumps(asdict(note))})
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelError(f"{path}: cannot be written: {reason}") from error


def read_taught(path: Path, load: Callable[[str, bool], SegmentationModel]) -> TaughtModel:
    """Load a taught model.

    Args:
        load: gives the base by its name or file, and in torch if that is asked for.

    Raises:
        ModelError: the file is damaged, or was taught on other weights of its base.
        OvsegError: as `load`.
    """
    note = read_note(path)
    arrays, _ = read_arrays(path)
    head = _head(path, arrays, len(note.classes))
    updates = from_arrays(arrays, path)
    if _BASE in arrays:
        base = load(str(_unpacked(path, arrays[_BASE], note.base_hash)), bool(updates))
    else:
        base = load(note.base, bool(updates))
        if base_hash(note.base, base) != note.base_hash:
            raise ModelError(
                f"{path}: was taught on other weights of {note.base} than those here: teach it "
                "again"
            )
    if updates:
        _update(path, base, updates)
    _check_width(path, head, base)
    card = ModelCard(str(path), KIND, note.description, note.licence, file_digest(path))
    names = [each[0] for each in note.classes]
    if strange := [name for name in note.stuff if name not in names]:
        raise ModelError(f"{path}: damaged: it was not taught {', '.join(strange)[:200]}")
    stuff = tuple(map(names.index, note.stuff))
    return TaughtModel(base, Taught(note.classes, head, note.text, stuff, note.doubt), card)


def base_hash(name: str, model: SegmentationModel) -> str:
    """Of the weights of a model that has a name; of the built-in one the same in both runtimes."""
    if name != BUILT_IN:
        return model.card.content_hash
    with as_file(files("ovseg.models.starter") / "weights.safetensors") as weights:
        return sha256(weights)


def _head(path: Path, arrays: dict[str, npt.NDArray], classes: int) -> LearnedHead:
    names = [each.name for each in fields(LearnedHead)]
    if missing := [name for name in names if name not in arrays]:
        raise ModelError(f"{path}: a taught model without its {', '.join(missing)}")
    head = LearnedHead(**{name: arrays[name].astype(np.float32) for name in names})
    seen, hidden = head.mean.size, head.inner_bias.size
    shapes = {
        "mean": (seen,), "deviation": (seen,), "linear": (seen, 1 + classes),
        "bias": (1 + classes,), "inner": (seen, hidden), "inner_bias": (hidden,),
        "outer": (hidden, 1 + classes), "rest": (1,),
    }  # fmt: skip
    for name, shape in shapes.items():
        found = getattr(head, name)
        if found.shape != shape or not np.isfinite(found).all():
            raise ModelError(f"{path}: its {name} is {found.shape}, not {shape}, or not finite")
    if not (head.deviation > 0).all():
        raise ModelError(f"{path}: its deviation is not positive everywhere")
    return head


def _update(path: Path, base: SegmentationModel, updates: Updates) -> None:
    """Write updates into the base's weights."""
    from ovseg.models.taught.low_rank import merge, require_tunable

    try:
        merge(require_tunable(base).tower, updates)
    except OvsegError as error:
        raise ModelError(f"{path}: {error}") from error


def _check_width(path: Path, head: LearnedHead, base: SegmentationModel) -> None:
    """Look at a grey image: heads fit no other base than their own."""
    side = base.preprocessing.multiple_of
    side *= -(-64 // side)
    found = seen_in(base.encode_image(base.from_numpy(np.zeros((1, 3, side, side), np.float32))))
    if found.shape[-1] != head.mean.size:
        raise ModelError(
            f"{path}: was taught on {head.mean.size} numbers a position, but its base gives "
            f"{found.shape[-1]}: teach it again"
        )


def _unpacked(path: Path, content: npt.NDArray[np.uint8], wanted: str) -> Path:
    """The checkpoint in a file, laid into the cache under its hash."""
    if hashlib.sha256(content.data).hexdigest() != wanted:
        raise ModelError(f"{path}: the checkpoint in it is damaged: fetch it again")
    place = cache_folder() / "taught" / f"{wanted}.safetensors"
    if not place.is_file() or sha256(place) != wanted:
        try:
            with replacing(place) as temporary:
                content.tofile(temporary)
        except OSError as error:
            raise ModelError(f"{place}: cannot be written: {error.strerror or error}") from error
    return place
