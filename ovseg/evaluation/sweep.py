"""Other backgrounds to score beside the one in use, from the same pass of the encoder."""

import logging
from dataclasses import dataclass, replace
from typing import Literal

from ovseg.errors import UsageError
from ovseg.evaluation.sets.base import EvaluationSet
from ovseg.inference.background import RULES
from ovseg.inference.protocol import Protocol, changed, swept_thresholds
from ovseg.models.interface import SegmentationModel

_log = logging.getLogger(__name__)

Sweep = Literal["", "threshold", "background"]
"""Nothing, thresholds of the rule in use, or these and every other rule with thresholds."""

SWEEPS = ("threshold", "background")


@dataclass(frozen=True)
class SweptRule:
    """A rule for the background, and thresholds to score it at.

    Attributes:
        rule: a key of `ovseg.inference.background.RULES`.
        protocol: with the rule, filled in for the model.
        thresholds: the rule's own among them.
    """

    rule: str
    protocol: Protocol
    thresholds: tuple[float, ...]


def check_sweep(sweep: str | bool | None) -> Sweep:
    """What is to be swept, by name; True stands for `threshold`.

    Raises:
        UsageError: that cannot be swept.
    """
    if sweep is True:
        return "threshold"
    if not sweep:
        return ""
    if sweep not in SWEEPS:
        raise UsageError(f"--sweep {sweep}: only threshold or background can be swept")
    return "threshold" if sweep == "threshold" else "background"


def other_rules(
    model: SegmentationModel, evaluated: EvaluationSet, protocol: Protocol
) -> tuple[SweptRule, ...]:
    """Every rule but the one in use; those that the protocol cannot have are told and left out.

    Args:
        protocol: in use, filled in for the model.

    Raises:
        UsageError: the set has no background.
    """
    if not evaluated.background:
        raise UsageError(f"--sweep background: {evaluated.name} has no background")
    found = []
    for rule in RULES:
        try:
            filled = changed(protocol, background_rule=rule).for_model(model)
        except UsageError as error:
            _log.warning("the rule %s is not swept: %s", rule, error)
            continue
        if _without_threshold(filled) != _without_threshold(protocol):
            thresholds = {filled.threshold or 0.0, *swept_thresholds(filled.threshold)}
            found.append(SweptRule(rule, filled, tuple(sorted(thresholds))))
    return tuple(found)


def _without_threshold(protocol: Protocol) -> Protocol:
    return replace(protocol, threshold=None, background_rule="")
