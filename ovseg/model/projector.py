"""The head that takes features to the embedding space shared by images and texts."""

from torch import Tensor, nn


class Projector(nn.Module):
    """Linear, BatchNorm, ReLU, Linear.

    In training each call normalises with the statistics of its own rows, so rows of different kinds
    (image means, group features) go through separate calls.
    """

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, hidden)
        self.norm = nn.BatchNorm1d(hidden)
        self.out = nn.Linear(hidden, out)

    def forward(self, x: Tensor) -> Tensor:
        """Project features, float [..., width] -> [..., out]; all leading axes are rows."""
        rows = x.reshape(-1, x.shape[-1])  # BatchNorm takes one row axis
        projected = self.out(self.norm(self.hidden(rows)).relu())
        return projected.reshape(*x.shape[:-1], projected.shape[-1])
