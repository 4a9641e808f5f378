"""Segmenters of models that may be shown examples; without any, nothing more is imported."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ovseg.inference.segmenter import Segmenter

if TYPE_CHECKING:
    from ovseg.teaching.examples import Example


def shown(model: str | Path, device: str, examples: "Sequence[str | Example]") -> Segmenter:
    """A segmenter of a model by name or file that also finds what examples show.

    Raises:
        OvsegError: as `Segmenter.from_pretrained` and `read_example`.
    """
    segmenter = Segmenter.from_pretrained(model, device)
    if not examples:
        return segmenter
    from ovseg.teaching.examples import with_examples

    return Segmenter(with_examples(segmenter.model, examples))
