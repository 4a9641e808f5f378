"""The array namespace of torch tensors and NumPy arrays."""

from typing import Any

import array_api_compat
import numpy as np

from ovseg.models.interface import Array

# NumPy 2.1 keeps the standard itself. The wrapper for older ones imports all of NumPy, down to its
# Fortran tools, which takes longer than the first mask of a small model.
_KEEPS_THE_STANDARD = hasattr(np, "unstack")


def array_namespace(array: Array) -> Any:
    """The module that holds the functions for an array, as the array API standard has them."""
    if _KEEPS_THE_STANDARD and isinstance(array, np.ndarray):
        return np
    return array_api_compat.array_namespace(array)
