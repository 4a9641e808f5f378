"""Numbers that look drawn and are a hash: the same on any machine, in any order (splitmix64)."""

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

_WORD = (1 << 64) - 1
_Words = TypeVar("_Words", int, npt.NDArray[Any])


def mix(word: _Words) -> _Words:
    """splitmix64's finaliser, of an integer of 64 bits or an array of them."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        word = ((word ^ (word >> shift)) * factor) & _WORD
    return word ^ (word >> 31)


def uniform(seed: int, rows: np.ndarray, stream: int) -> npt.NDArray[np.float64]:
    """Numbers in [0, 1), [R], that depend on (seed, row, stream) alone."""
    key = np.uint64(mix((seed + 0x9E3779B97F4A7C15) & _WORD))
    state = (rows.astype(np.uint64) << np.uint64(10)) + np.uint64(stream)
    state = mix(state * np.uint64(0xD1342543DE82EF95) + key)
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53
