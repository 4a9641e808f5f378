"""Label propagation: scores that spread over a graph (Zhou et al., NeurIPS 2003).

With W the likeness of nodes, D its row sums and S = D^-1/2 W D^-1/2, scores Y become the solution Z
of (I - alpha S) Z = Y, by conjugate gradients that are cut short as the released LPOSS does: at its
alpha they have not converged then, and its results count on that.

Letters: n node, L map.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from ovseg.inference.refine.conjugate_gradients import solve
from ovseg.models.interface import Array, array_namespace


@dataclass(frozen=True)
class LabelPropagation:
    """Settings of LPOSS and LPOSS+ (Stojnic et al., CVPR 2025), as its authors ran them.

    Attributes:
        neighbours: nearest patches of a patch in the space of features, itself counted; where an
            image has fewer, all of them.
        gamma: power of the likeness of two patches.
        sigma, power: weights fall by exp(-sigma * distance^power), distances in pixels of the
            network's image.
        tau: difference of colours at which the weight of two pixels falls to 1/e (`lposs+`).
        diameter: pixels of the square in which a pixel has its neighbours (`lposs+`).
        alpha: share of a node's score that comes from others, below 1.
        iterations: steps of the conjugate gradients at most.
        tolerance: residual, as a share of the right-hand side, at which they stop.
    """

    neighbours: int = 400
    gamma: float = 3.0
    sigma: float = 0.01
    power: float = 1.0
    tau: float = 0.01
    diameter: int = 13
    alpha: float = 0.95
    iterations: int = 10
    tolerance: float = 1e-6

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    @property
    def reach(self) -> int:
        """Pixels to a pixel's farthest neighbour along an axis (`lposs+`)."""
        return self.diameter // 2

    def solve(
        self, weigh: Callable[[Array], Array], scores: Array, axes: tuple[int, ...] = (0,)
    ) -> Array:
        """Z for Y = `scores`, float [n, L], or with the nodes along other axes.

        Args:
            weigh: multiplies by S; what it returns is changed.
            scores: Y.
            axes: along which the nodes lie.
        """

        def operator(x: Array) -> Array:
            found = weigh(x)
            found *= -self.alpha
            found += x
            return found

        return solve(operator, scores, self.iterations, self.tolerance, axes)


def inverse_root(degrees: Array) -> Array:
    """D^-1/2 of row sums; nodes without neighbours count as if their sum were 1."""
    xp: Any = array_namespace(degrees)
    return 1 / xp.sqrt(xp.where(degrees > 0, degrees, xp.ones_like(degrees)))
