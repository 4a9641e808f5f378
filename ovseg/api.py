"""The verbs: what the command line does, as functions of Python.

Each puts together what lies below it and returns a typed result; nothing is printed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ovseg.data.class_list import ClassList
    from ovseg.inference.inputs import ImageLike
    from ovseg.inference.segmentation import Segmentation


def segment(
    image: "ImageLike",
    classes: "str | Sequence[str] | ClassList",
    model: str | Path = "starter",
    device: str = "auto",
    **options: Any,
) -> "Segmentation":
    """Segment one image by any classes one can name.

    The model is loaded for this call; a `Segmenter` keeps it for many images.

    Args:
        image: a file, a Pillow image, or RGB pixels, uint8 [H, W, 3].
        classes: `cat,dog`, a list of names, or a `ClassList`; synonyms separated by `;`.
        model: a model's name, checkpoint or exported folder.
        device: as torch names it, or `auto`.
        options: fields of `Options`, such as `background=False`.

    Raises:
        OvsegError: the model or the image cannot be read, or the classes make no sense.
    """
    from ovseg.inference.segmenter import Segmenter

    return Segmenter.from_pretrained(model, device).segment(image, classes, **options)
