"""Modules that have shapes and no numbers, to compare what a file claims with what it holds."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_FILLING = {"normal_", "uniform_", "trunc_normal_", "erfinv_"}


class _NothingToFill(TorchFunctionMode):
    """Leaves start weights out: for shapes alone, torch would import its compiler to draw them."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name, module = getattr(func, "__name__", ""), getattr(func, "__module__", "")
        if name in _FILLING or module == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


@contextmanager
def without_memory() -> Iterator[None]:
    """What is built within takes no memory."""
    with torch.device("meta"), _NothingToFill():
        yield
