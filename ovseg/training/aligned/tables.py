"""Looking features up where they are: on the device if they fit, else mapped from disk.

Letters: B row, L vector of a row, D width.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ovseg.data.vectors import VectorRows

_SHARE = 0.6  # of a device's free memory that features may take
_KEPT = 8  # tables that later runs of a process may find on the device
_UPLOADED: dict[tuple, Tensor] = {}


class FeatureTable:
    """Features of several sets of equal rows, such as the views of photos.

    Args:
        sets: each with the same rows.
        device: where features are wanted.
    """

    def __init__(self, sets: Sequence[VectorRows], device: torch.device) -> None:
        self.sets = sets
        self.device = device
        self._here: Tensor | None = None
        size = sum(2 * len(each) * each.longest * each.width for each in sets)
        if device.type == "cuda":
            self._here = self._uploaded(size)

    @property
    def on_device(self) -> bool:
        """Whether all features are in the device's memory."""
        return self._here is not None

    def take(self, rows: Tensor, which: Tensor | None = None) -> Tensor:
        """The features of some rows, float32 [B, L, D] on the device, zeros behind the last.

        Args:
            rows: int64 [B], on the host.
            which: the set of each row, int64 [B]; the first by default.
        """
        which = torch.zeros_like(rows) if which is None else which
        if self._here is not None:
            places = (which * len(self.sets[0]) + rows).to(self.device, non_blocking=True)
            return self._here[places].float()
        found = self._read(rows.numpy(), which.numpy())
        return torch.from_numpy(found).to(self.device, non_blocking=True).float()

    def take_texts(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors of texts of unequal length, float32 [B, L, D], with their mask, bool [B, L]."""
        found, lengths = self.sets[0].take(rows.numpy())
        there = torch.arange(found.shape[1])[None] < torch.from_numpy(lengths)[:, None]
        return torch.from_numpy(found).to(self.device).float(), there.to(self.device)

    def _read(self, rows: np.ndarray, which: np.ndarray) -> np.ndarray:
        longest = max(each.longest for each in self.sets)
        found = np.zeros((len(rows), longest, self.sets[0].width), np.float16)
        for place, (row, number) in enumerate(zip(rows.tolist(), which.tolist(), strict=True)):
            vectors = self.sets[number][row]
            found[place, : len(vectors)] = vectors
        return found

    def _uploaded(self, size: int) -> Tensor | None:
        """On the device, where runs of one process share them; None if they do not fit."""
        key = (str(self.device), *((each.name, len(each)) for each in self.sets))
        if key not in _UPLOADED:
            if size > _SHARE * torch.cuda.mem_get_info(self.device)[0]:
                return None
            while len(_UPLOADED) >= _KEPT:
                _UPLOADED.pop(next(iter(_UPLOADED)))
            _UPLOADED[key] = self._upload()
        return _UPLOADED[key]

    def _upload(self) -> Tensor:
        longest = max(each.longest for each in self.sets)
        count, width = len(self.sets[0]), self.sets[0].width
        here = torch.zeros(
            len(self.sets) * count, longest, width, dtype=torch.float16, device=self.device
        )
        for number, each in enumerate(self.sets):
            for start in range(0, count, 1024):
                rows = np.arange(start, min(start + 1024, count))
                found = torch.from_numpy(each.take(rows)[0]).to(self.device)
                begin = number * count + start
                here[begin : begin + len(rows), : found.shape[1]] = found
        return here
