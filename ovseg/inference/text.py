"""What is asked for, in words: class embeddings kept on disk, several phrases a class.

Letters: Q phrase, C embedding width, K class.
"""

import hashlib
import logging
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from array_api_compat import is_torch_array
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ovseg.data.class_list import ClassList
from ovseg.files import cache_folder, replacing
from ovseg.models.interface import Array, SegmentationModel, array_namespace

_log = logging.getLogger(__name__)


class EmbeddingCache:
    """Class embeddings of one model.

    Kept in one safetensors file per set of templates, under the cache folder and named by the
    model's content hash: other weights mean another file. A cache that cannot be read or written is
    done without.
    """

    def __init__(self, model: SegmentationModel) -> None:
        self._model = model
        self._known: dict[tuple[str, ...], dict[str, np.ndarray]] = {}

    def get(self, phrases: Sequence[str], templates: Sequence[str]) -> np.ndarray:
        """Embeddings of the phrases, averaged over the templates, float32 [Q, C]."""
        known = self._load(tuple(templates))
        missing = [phrase for phrase in dict.fromkeys(phrases) if phrase not in known]
        if missing:
            fresh = self._model.encode_text(missing, templates)  # [missing, C]
            known.update(zip(missing, _to_numpy(fresh), strict=True))
            self._save(tuple(templates), known)
        return np.stack([known[phrase] for phrase in phrases])

    def _path(self, templates: tuple[str, ...]) -> Path:
        digest = hashlib.sha256("\0".join(templates).encode()).hexdigest()[:16]
        name = f"{self._model.card.content_hash[:32]}-{digest}.safetensors"
        return cache_folder() / "embeddings" / name

    def _load(self, templates: tuple[str, ...]) -> dict[str, np.ndarray]:
        if templates not in self._known:
            try:
                self._known[templates] = load_file(self._path(templates))
            except FileNotFoundError:
                self._known[templates] = {}
            except (OSError, SafetensorError) as error:
                _log.warning("embedding cache %s is unreadable: %s", self._path(templates), error)
                self._known[templates] = {}
        return self._known[templates]

    def _save(self, templates: tuple[str, ...], known: dict[str, np.ndarray]) -> None:
        try:
            with replacing(self._path(templates)) as temporary:
                save_file(known, temporary)
        except OSError as error:
            _log.info("embedding cache %s cannot be written: %s", self._path(templates), error)


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
