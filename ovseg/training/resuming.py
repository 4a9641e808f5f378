"""Whether a run may go on from a checkpoint: what may differ between the two, and what may not."""

from collections.abc import Mapping
from typing import Any

from ovseg.config.dump import differences
from ovseg.config.load import recipe_from_values
from ovseg.config.schema import Recipe
from ovseg.errors import RecipeError
from ovseg.training.checkpoints import RunState

FREE = frozenset(
    {
        "data.workers",
        "data.max_bad_samples",
        "train.compile",
        "train.log_every",
        "train.save_every",
        "train.keep_last",
        "train.overlays_every",
        "train.tracker",
        "train.evaluate_on",
        "train.max_skipped",
    }
)
"""Keys that change nothing about the computation."""
_CHECKED_OTHERWISE = frozenset({"data.shards", "data.batch_size", "data.accumulation"})


def check_same_run(
    state: RunState, recipe: Recipe, global_batch: int, fingerprint: str, where: str
) -> None:
    """Make sure that a checkpoint belongs to this recipe and data.

    Folders may have moved and the batch may be dealt to another number of processes.

    Raises:
        RecipeError: with a sentence for each thing that changed.
    """
    problems = [
        f"{where}: {difference} since this checkpoint: set it back, or start a new --output"
        for difference in differences(_recipe_of(state.recipe, where), recipe)
        if difference.key not in FREE | _CHECKED_OTHERWISE
    ]
    if state.global_batch != global_batch:
        problems.append(
            f"{where}: a step took {state.global_batch} pairs and would now take {global_batch}: "
            "batch_size x accumulation x processes must stay the same"
        )
    if state.fingerprint != fingerprint:
        problems.append(f"{where}: data.shards no longer holds the same pairs")
    if problems:
        raise RecipeError(*problems)


def _recipe_of(values: Mapping[str, Any], where: str) -> Recipe:
    return recipe_from_values(values, where)
