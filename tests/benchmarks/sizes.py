"""How large a benchmark is: its own size, or a tiny one where OVSEG_BENCH_TINY is set.

Tiny benchmarks say nothing about speed; a test runs them to see that every documented one works.
"""

import os
from typing import TypeVar

T = TypeVar("T")

TINY = bool(os.environ.get("OVSEG_BENCH_TINY"))


def full(own: T, tiny: T) -> T:
    """The benchmark's own size, unless it need only run."""
    return tiny if TINY else own
