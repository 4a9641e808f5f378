"""What is asked for, in words: class embeddings kept on disk, several phrases a class.

Letters: Q phrase, C embedding width, K class.
"""

import hashlib
import json
import logging
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from array_api_compat import is_torch_array
from safetensors import SafetensorError
from safetensors.numpy import save_file

from ovseg.data.class_list import ClassList
from ovseg.errors import OvsegError
from ovseg.files import cache_folder, replacing
from ovseg.models.interface import Array, SegmentationModel, array_namespace
from ovseg.models.tensor_files import read_arrays

_log = logging.getLogger(__name__)

Embeddings: TypeAlias = dict[str, np.ndarray]
"""By phrase, float32 [C]."""

_HASH = re.compile("[0-9a-f]{64}")


class EmbeddingCache:
    """Class embeddings of one model.

    Kept in one safetensors file per set of templates, under the cache folder and named by the
    model's content hash, which was computed here: other weights mean another file, and a model
    without a hash, such as one in training, has none. A cache that cannot be read or written, or
    holds something else than finite embeddings of one width, is done without.

    Args:
        model: whose embeddings are kept.
        most: of phrases that strangers ask for, how many are kept, in memory alone; None keeps all.
    """

    def __init__(self, model: SegmentationModel, most: int | None = None) -> None:
        self._model = model
        self._most = most
        self._known: dict[tuple[str, ...], Embeddings] = {}

    def get(self, phrases: Sequence[str], templates: Sequence[str]) -> np.ndarray:
        """Embeddings of the phrases, averaged over the templates, float32 [Q, C]."""
        known = self._load(tuple(templates))
        missing = [phrase for phrase in dict.fromkeys(phrases) if phrase not in known]
        if missing:
            fresh = _to_numpy(self._model.encode_text(missing, templates))  # [missing, C]
            if known and fresh.shape[1:] != next(iter(known.values())).shape:
                known.clear()  # of another model, whatever its name
                return self.get(phrases, templates)
            known.update(zip(missing, fresh, strict=True))
            self._drop_oldest(known, set(phrases))
            self._save(tuple(templates), known)
        return np.stack([known[phrase] for phrase in phrases])

    def _drop_oldest(self, known: Embeddings, asked: set[str]) -> None:
        """Forget those that came first; never what was just asked for."""
        if self._most is None or len(known) <= self._most:
            return
        for phrase in [each for each in known if each not in asked][: len(known) - self._most]:
            del known[phrase]

    def _path(self, templates: tuple[str, ...]) -> Path | None:
        """The file of a set of templates; None for a model that has no hash."""
        identity = self._model.card.content_hash
        if self._most is not None or not _HASH.fullmatch(identity):
            return None
        digest = hashlib.sha256(json.dumps([identity, *templates]).encode()).hexdigest()
        return cache_folder() / "embeddings" / f"{digest}.safetensors"

    def _load(self, templates: tuple[str, ...]) -> Embeddings:
        if templates not in self._known:
            self._known[templates] = self._read(self._path(templates))
        return self._known[templates]

    def _read(self, path: Path | None) -> Embeddings:
        if path is None or not path.is_file():
            return {}
        try:
            found, metadata = read_arrays(path)
            if metadata.get("sha256") == _checksum(found):
                return found
            _log.warning("embedding cache %s is damaged", path)
        except OvsegError as error:
            _log.warning("embedding cache %s is unreadable: %s", path, error)
        return {}

    def _save(self, templates: tuple[str, ...], known: Embeddings) -> None:
        path = self._path(templates)
        if path is None or not all(np.isfinite(values).all() for values in known.values()):
            return
        try:
            with replacing(path) as temporary:
                save_file(known, temporary, {"sha256": _checksum(known)})
        except (OSError, SafetensorError) as error:
            _log.info("embedding cache %s cannot be written: %s", path, error)


def _checksum(embeddings: Embeddings) -> str:
    """Of the phrases and what they became; "" where that is no embedding."""
    digest = hashlib.sha256()
    for phrase, values in sorted(embeddings.items()):
        if values.dtype != np.float32 or values.ndim != 1:
            return ""
        digest.update(json.dumps([phrase, len(values)]).encode() + values.tobytes())
    return digest.hexdigest()


def _to_numpy(values: Array) -> np.ndarray:
    """An array of any kind as float32 NumPy."""
    if is_torch_array(values):
        values = values.detach().float().cpu().numpy()
    return np.asarray(values, dtype=np.float32)


def best_synonym(scores: Array, classes: ClassList) -> Array:
    """From a column per phrase to a column per class, by maximum: [..., 1 + Q] -> [..., 1 + K]."""
    if len(classes.phrases) == len(classes.names):
        return scores
    xp: Any = array_namespace(scores)
    labels = np.array((0, *classes.phrase_labels))
    starts = [int(index) for index in np.searchsorted(labels, np.arange(labels[-1] + 2))]
    columns = [xp.max(scores[..., start:stop], axis=-1) for start, stop in pairwise(starts)]
    return xp.stack(columns, axis=-1)
