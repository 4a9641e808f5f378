"""Conjugate gradients for many right-hand sides at once (Hestenes and Stiefel, 1952).

Letters: n node, L right-hand side.
"""

from collections.abc import Callable
from typing import Any

from ovseg.models.interface import Array, array_namespace


def solve(
    operator: Callable[[Array], Array],
    wanted: Array,
    iterations: int,
    tolerance: float,
    axes: tuple[int, ...] = (0,),
) -> Array:
    """An X with operator(X) near `wanted`, from 0, each column on its own, in its own type.

    Args:
        operator: a symmetric positive definite one, from [n, L] to [n, L].
        wanted: right-hand sides, float [n, L], or with the nodes along other axes.
        iterations: most steps taken.
        tolerance: share of its right-hand side that a column's residual may have to be done with.
        axes: along which the nodes lie.
    """
    xp: Any = array_namespace(wanted)
    found = xp.zeros_like(wanted)
    residual, direction = (xp.asarray(wanted, copy=True) for _ in range(2))
    square = xp.sum(residual * residual, axis=axes, keepdims=True)  # [1, L]
    enough = tolerance**2 * square
    for _ in range(iterations):
        moving = square > enough
        if not bool(xp.any(moving)):
            break
        moved = operator(direction)
        length = _quotient(square, xp.sum(direction * moved, axis=axes, keepdims=True), moving)
        found += length * direction
        residual -= length * moved
        left = xp.sum(residual * residual, axis=axes, keepdims=True)
        before, square = square, xp.where(moving, left, square)
        direction *= _quotient(square, before, moving)
        direction += residual
    return found


def _quotient(above: Array, below: Array, moving: Array) -> Array:
    """above / below for the columns that move, 0 for the others."""
    xp: Any = array_namespace(above)
    usable = moving & (below != 0)
    return xp.where(usable, above / xp.where(usable, below, xp.ones_like(below)), 0 * above)
