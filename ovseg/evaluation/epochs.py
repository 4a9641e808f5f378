"""Scoring a model between the epochs of its training: on a set of `ovseg eval`, or by retrieval."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ovseg.config.schema import Recipe
from ovseg.errors import UsageError
from ovseg.evaluation.evaluate import measure, prepare
from ovseg.evaluation.held_out import HeldOut
from ovseg.evaluation.result import EvaluationResult
from ovseg.evaluation.sets.catalogue import open_set
from ovseg.models.interface import SegmentationModel
from ovseg.training.log import Evaluate

RETRIEVAL = "retrieval"
"""In `train.evaluate_on`: captions and photos that were held out find each other."""

_PAPER_SIZE = 224


def epoch_evaluation(recipe: Recipe, data: Path | None) -> Evaluate | None:
    """What computes the scores of a model, 0..1, after an epoch; None where no set is named.

    The set is opened at once, so that a wrong folder is found before the training.

    Args:
        recipe: whose `train.evaluate_on` names the set.
        data: the set's folder.

    Raises:
        UsageError: there is no such set, or its folder is not given.
        RecipeError: retrieval has no photos, or is asked of another kind of model.
        DataError: its files are not there.
    """
    name = recipe.train.evaluate_on
    if not name:
        return None
    if name == RETRIEVAL:
        return HeldOut(recipe)
    if data is None:
        raise UsageError(
            f"train.evaluate_on is {name!r}: give its folder with --data-root, or switch the "
            "evaluation off with --set train.evaluate_on="
        )
    open_set(name, data)

    def evaluate(model: SegmentationModel) -> Mapping[str, float]:
        return {"mIoU": evaluate_trained(model, name, data).scores.mean_iou}

    return evaluate


def evaluate_trained(
    model: SegmentationModel,
    name: str,
    data: Path,
    split: str | None = None,
    limit: int | None = None,
) -> EvaluationResult:
    """The protocol that models of this kind are evaluated under, on the set's first images.

    OVSegmentor has the `groupvit` protocol, its lengths in proportion to the size that the model
    trains at: at the paper's 224 pixels that is the protocol itself, a shorter side and windows of
    448. Aligned models bring their own lengths.
    """
    evaluated = open_set(name, data, split).first(limit)
    if model.card.kind != "ovsegmentor":
        return measure(prepare(model, evaluated), fresh=True)
    network: Any = model
    encoder = network.model.image_encoder
    size = encoder.stored_grid[0] * encoder.patch
    changes = {"short_side": 2 * size, "window": 2 * size, "stride": size}
    run = prepare(model, evaluated, "groupvit", changes if size != _PAPER_SIZE else None)
    return measure(run, fresh=True)
