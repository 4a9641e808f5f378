"""Open-vocabulary semantic segmentation.

    import ovseg
    ovseg.segment("photo.jpg", "cat,dog").overlay().save("overlay.png")

Names are loaded when first used, so that importing the package costs nothing.
"""

import os
from typing import TYPE_CHECKING, Any

from ovseg.version import __version__

# ONNX Runtime reports its use to its makers, unless this is set before it is imported by anyone.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from ovseg.api import (
        build_dataset,
        evaluate,
        export_model,
        plan_pretraining,
        pretrain,
        segment,
        segment_files,
    )
    from ovseg.data.annotations.formats import read_annotations
    from ovseg.data.class_list import ClassList
    from ovseg.data.dataset.folder import DatasetSummary
    from ovseg.evaluation.result import EvaluationResult
    from ovseg.export.export import ExportResult
    from ovseg.inference.protocol import Protocol
    from ovseg.inference.result import Segmentation
    from ovseg.inference.segmenter import Segmenter
    from ovseg.serving_api import demo, serve
    from ovseg.teach_api import teach
    from ovseg.teaching.teach import TeachingResult
    from ovseg.training.plan import Plan
    from ovseg.training.run import TrainingResult
    from ovseg.video_api import evaluate_video, segment_video

__all__ = [
    "ClassList",
    "DatasetSummary",
    "EvaluationResult",
    "ExportResult",
    "Plan",
    "Protocol",
    "Segmentation",
    "Segmenter",
    "TeachingResult",
    "TrainingResult",
    "__version__",
    "build_dataset",
    "demo",
    "evaluate",
    "evaluate_video",
    "export_model",
    "plan_pretraining",
    "pretrain",
    "read_annotations",
    "segment",
    "segment_files",
    "segment_video",
    "serve",
    "teach",
]

_HOMES = {
    "ClassList": "ovseg.data.class_list",
    "DatasetSummary": "ovseg.data.dataset.folder",
    "EvaluationResult": "ovseg.evaluation.result",
    "ExportResult": "ovseg.export.export",
    "Plan": "ovseg.training.plan",
    "Protocol": "ovseg.inference.protocol",
    "Segmentation": "ovseg.inference.result",
    "Segmenter": "ovseg.inference.segmenter",
    "TeachingResult": "ovseg.teaching.teach",
    "TrainingResult": "ovseg.training.run",
    "build_dataset": "ovseg.api",
    "demo": "ovseg.serving_api",
    "evaluate": "ovseg.api",
    "evaluate_video": "ovseg.video_api",
    "export_model": "ovseg.api",
    "plan_pretraining": "ovseg.api",
    "pretrain": "ovseg.api",
    "read_annotations": "ovseg.data.annotations.formats",
    "segment": "ovseg.api",
    "segment_files": "ovseg.api",
    "segment_video": "ovseg.video_api",
    "serve": "ovseg.serving_api",
    "teach": "ovseg.teach_api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ovseg' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """What there is, for `help(ovseg)` and completion."""
    return sorted({*globals(), *__all__})
