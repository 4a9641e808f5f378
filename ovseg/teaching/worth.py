"""What must be gained on photos that were held out for something to be used."""

WORTH_IT = 0.01
"""Of mIoU: of many things that are tried, one always gains, and 0.7 points there were none on
photos of their own; see docs/teach.md."""


def is_worth_it(without: float, beside: float) -> bool:
    """Whether a score, 0..1, is enough above the one without."""
    return beside > without + WORTH_IT
