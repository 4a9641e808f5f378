"""Open-vocabulary semantic segmentation.

    import ovseg
    result = ovseg.Segmenter.from_pretrained("starter").segment("photo.jpg", "cat,dog")
    result.overlay().save("overlay.png")

Names are loaded when first used, so that importing the package costs nothing.
"""

from typing import TYPE_CHECKING, Any

from ovseg.version import __version__

if TYPE_CHECKING:
    from ovseg.data.class_list import ClassList
    from ovseg.zeroshot.options import Options
    from ovseg.zeroshot.segmentation import Segmentation
    from ovseg.zeroshot.segmenter import Segmenter

__all__ = ["ClassList", "Options", "Segmentation", "Segmenter", "__version__"]

_HOMES = {
    "ClassList": "ovseg.data.class_list",
    "Options": "ovseg.zeroshot.segmenter",
    "Segmentation": "ovseg.zeroshot.segmentation",
    "Segmenter": "ovseg.zeroshot.segmenter",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ovseg' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
