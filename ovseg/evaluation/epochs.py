"""Scoring a model between the epochs of its training, on any set that `ovseg eval` knows."""

from pathlib import Path

from ovseg.errors import UsageError
from ovseg.evaluation.evaluate import measure, prepare
from ovseg.evaluation.result import EvaluationResult
from ovseg.evaluation.sets.catalogue import open_set
from ovseg.models.ovsegmentor.predictor import Predictor
from ovseg.training.log import Evaluate

_PAPER_SIZE = 224


def epoch_evaluation(name: str, data: Path | None) -> Evaluate | None:
    """What computes the zero-shot mIoU, 0..1, of a model on a set; None where no set is named.

    The set is opened at once, so that a wrong folder is found before the training.

    Args:
        name: `train.evaluate_on` of a recipe.
        data: the set's folder.

    Raises:
        UsageError: there is no such set, or its folder is not given.
        DataError: its files are not there.
    """
    if not name:
        return None
    if data is None:
        raise UsageError(
            f"train.evaluate_on is {name!r}: give its folder with --data-root, or switch the "
            "evaluation off with --set train.evaluate_on="
        )
    open_set(name, data)

    def evaluate(model: Predictor) -> float:
        return evaluate_trained(model, name, data).scores.mean_iou

    return evaluate


def evaluate_trained(
    model: Predictor, name: str, data: Path, split: str | None = None, limit: int | None = None
) -> EvaluationResult:
    """The `groupvit` protocol, its lengths in proportion to the size that the model trains at.

    At the paper's 224 pixels that is the protocol itself: a shorter side and windows of 448. Of
    the set's images the first `limit` count.
    """
    encoder = model.model.image_encoder
    size = encoder.stored_grid[0] * encoder.patch
    changes = {"short_side": 2 * size, "window": 2 * size, "stride": size}
    evaluated = open_set(name, data, split).first(limit)
    run = prepare(model, evaluated, "groupvit", changes if size != _PAPER_SIZE else None)
    return measure(run, fresh=True)
