"""Several phrases for one class.

Letters: B image, G group, Q phrase, K class.
"""

from itertools import pairwise
from typing import Any

import numpy as np

from ovseg.data.class_list import ClassList
from ovseg.models.interface import Array, array_namespace


def best_synonym(scores: Array, classes: ClassList) -> Array:
    """From a column per phrase to a column per class, by maximum: [..., 1 + Q] -> [..., 1 + K]."""
    if len(classes.phrases) == len(classes.names):
        return scores
    xp: Any = array_namespace(scores)
    labels = np.array((0, *classes.phrase_labels))
    starts = [int(index) for index in np.searchsorted(labels, np.arange(labels[-1] + 2))]
    columns = [xp.max(scores[..., start:stop], axis=-1) for start, stop in pairwise(starts)]
    return xp.stack(columns, axis=-1)
