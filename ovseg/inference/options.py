"""How to segment."""

from dataclasses import dataclass

from ovseg.inference.windows import WindowChoice


@dataclass(frozen=True)
class Options:
    """How to segment.

    Attributes:
        background: whether pixels may belong to none of the classes.
        threshold: background threshold; None takes the model's own.
        templates: prompt templates with one `{}` each; None takes the model's own.
        short_side: pixels of the shorter side at which the model looks; None takes the model's own.
        window: sliding windows whose scores are averaged; "none" is one pass over the whole image,
            "auto" what the model is used with.
        refine: `pamr` lets the labels of a dense model follow the edges of the image.
    """

    background: bool = True
    threshold: float | None = None
    templates: tuple[str, ...] | None = None
    short_side: int | None = None
    window: WindowChoice = "auto"
    refine: str = ""
