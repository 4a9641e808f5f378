"""Scoring a model between epochs, on any set that `ovseg eval` knows."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ovseg.models.ovsegmentor.predictor import Predictor

if TYPE_CHECKING:
    from ovseg.evaluation.result import EvaluationResult
    from ovseg.training.log import Evaluate

_PAPER_SIZE = 224


def evaluation_of(name: str, data: Path) -> "Evaluate":
    """What computes the zero-shot mIoU, 0..1, of a model on a set.

    The set is opened at once, so that a wrong folder is found before the training.

    Raises:
        UsageError: there is no such set.
        DataError: its files are not there.
    """
    from ovseg.evaluation.sets.catalogue import open_set

    open_set(name, data)

    def evaluate(model: Predictor) -> float:
        return result_of(model, name, data).scores.mean_iou

    return evaluate


def result_of(
    model: Predictor, name: str, data: Path, split: str | None = None, most: int | None = None
) -> "EvaluationResult":
    """The `groupvit` protocol, its lengths in proportion to the size that the model trains at.

    At the paper's 224 pixels that is the protocol itself: a shorter side and windows of 448. Of
    the set's images the first `most` count.
    """
    from ovseg.evaluation.protocol import load_protocol
    from ovseg.evaluation.result import summarise
    from ovseg.evaluation.run import Run, evaluate
    from ovseg.evaluation.sets.catalogue import open_set

    encoder = model.model.image_encoder
    size = encoder.stored_grid[0] * encoder.patch
    changes = {"short_side": 2 * size, "window": 2 * size, "stride": size}
    evaluated = open_set(name, data, split)
    evaluated = replace(evaluated, samples=evaluated.samples[:most])
    protocol = load_protocol("groupvit", evaluated, changes if size != _PAPER_SIZE else None)
    protocol = protocol.for_model(model, background=evaluated.background)
    run = Run(model, evaluated, protocol, (), 16)
    return summarise(run, evaluate(run, fresh=True))
