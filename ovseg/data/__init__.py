"""Reading and describing what goes in: images, class lists, data sets, and building those.

What `ovseg build-dataset` does beside `ovseg.build_dataset` are functions here; their names are
loaded when first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ovseg.data.build.copying import merge_datasets, publish_dataset
    from ovseg.data.build.inspection import Inspection, inspect_dataset
    from ovseg.data.build.request import DatasetPlan, agreement_on, load_request, plan_dataset
    from ovseg.data.build.tagging import TaggerAgreement
    from ovseg.data.cutouts.build import CutoutsSummary, build_cutouts
    from ovseg.data.cutouts.request import CutoutsPlan, CutoutsRequest, plan_cutouts

__all__ = [
    "CutoutsPlan",
    "CutoutsRequest",
    "CutoutsSummary",
    "DatasetPlan",
    "Inspection",
    "TaggerAgreement",
    "agreement_on",
    "build_cutouts",
    "inspect_dataset",
    "load_request",
    "merge_datasets",
    "plan_cutouts",
    "plan_dataset",
    "publish_dataset",
]

_HOMES = {
    "TaggerAgreement": "build.tagging",
    "CutoutsPlan": "cutouts.request",
    "CutoutsRequest": "cutouts.request",
    "CutoutsSummary": "cutouts.build",
    "DatasetPlan": "build.request",
    "Inspection": "build.inspection",
    "agreement_on": "build.request",
    "build_cutouts": "cutouts.build",
    "inspect_dataset": "build.inspection",
    "load_request": "build.request",
    "merge_datasets": "build.copying",
    "plan_cutouts": "cutouts.request",
    "plan_dataset": "build.request",
    "publish_dataset": "build.copying",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ovseg.data' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"ovseg.data.{_HOMES[name]}"), name)
