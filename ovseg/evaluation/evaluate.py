"""From names and folders to results: the steps that the verbs of evaluation are made of."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ovseg.distributed import processes
from ovseg.errors import UsageError
from ovseg.evaluation import ranking
from ovseg.evaluation.protocol import load_protocol, protocol_for_model
from ovseg.evaluation.result import EvaluationResult, summarise
from ovseg.evaluation.run import Progress, Run, evaluate
from ovseg.evaluation.sets.base import EvaluationSet
from ovseg.evaluation.sweep import check_sweep, other_rules
from ovseg.inference.background import asked_for, check_rule
from ovseg.inference.protocol import Protocol, check_share, swept_thresholds
from ovseg.inference.refine.chain import NONE, parse_chain
from ovseg.inference.segmenter import as_class_list
from ovseg.locks import holding, holding_file
from ovseg.models.interface import SegmentationModel
from ovseg.models.registry import load_model

_log = logging.getLogger(__name__)

AUGMENTATIONS: Mapping[str, dict[str, Any]] = {
    "flip": {"flip": True},
    "scales": {"scales": (0.75, 1.0, 1.25)},
}
"""Views to average over, by name, as values of a protocol."""

_SHOWN = 5  # unknown words that a warning names


def protocol_changes(
    threshold: float | None = None,
    refine: str | None = None,
    tta: Iterable[str] = (),
    distractors: str | Sequence[str] | None = None,
    background_rule: str | None = None,
    background_words: str | Sequence[str] | None = None,
) -> dict[str, Any]:
    """Values to use instead of a protocol's own, as `load_protocol` takes them.

    Args:
        threshold: of the background, 0..1; None leaves it.
        refine: as `Protocol.refine`; None leaves it.
        tta: keys of AUGMENTATIONS.
        distractors: further classes to ask for, as `cat,dog`, `@FILE` or a list.
        background_rule: a key of `ovseg.inference.background.RULES`; None leaves it.
        background_words: phrases that stand for the background, as `distractors`; None leaves them.

    Raises:
        UsageError: there is no such augmentation, refinement or rule, the threshold is out of its
            range, or the classes make no sense.
    """
    check_share("threshold", threshold)
    wanted = set(tta)
    if unknown := wanted - set(AUGMENTATIONS):
        raise UsageError(f"--tta {', '.join(sorted(unknown))}: choose flip, scales or both")
    check_rule(background_rule or "")
    parse_chain(refine or NONE)
    given: dict[str, Any] = {
        "threshold": threshold, "refine": refine, "background_rule": background_rule
    }  # fmt: skip
    if background_words is not None:
        given["background_words"] = as_class_list(background_words).phrases
    changes = asked_for({k: value for k, value in given.items() if value is not None})
    for name in wanted:
        changes |= AUGMENTATIONS[name]
    if distractors is not None:
        asked = as_class_list(distractors)
        changes["distractors"] = tuple("; ".join(phrases) for phrases in asked.synonyms)
    return changes


def model_of(model: str | Path | SegmentationModel, device: str = "auto") -> SegmentationModel:
    """A model by name or file on a device, or one that is loaded already as it is.

    `auto` is the device meant for this process where a launcher has started several.

    Raises:
        OvsegError: as `load_model`.
    """
    if not isinstance(model, (str, Path)):
        return model
    return load_model(model, (processes().device or device) if device == "auto" else device)


def prepare(
    model: SegmentationModel,
    evaluated: EvaluationSet,
    protocol: str | None = None,
    changes: dict[str, Any] | None = None,
    *,
    sweep: str | bool = "",
    batch: int = 16,
) -> Run:
    """What will be evaluated and how; the first process warns of words the model does not know.

    Args:
        model: on its device.
        evaluated: the set.
        protocol: a name or a TOML file; None takes that which models of this kind are published
            under.
        changes: values to use instead of the protocol's.
        sweep: `threshold` or `background`: what else is scored from the same pass, as
            `ovseg.evaluation.sweep` has it.
        batch: most windows that go through the encoder at once.

    Raises:
        UsageError, RecipeError: as `load_protocol`; or that cannot be swept.
    """
    chosen = protocol or protocol_for_model(model.card.kind)
    settings = _beside(load_protocol(chosen, evaluated, changes), evaluated)
    settings = settings.for_model(model, background=evaluated.background)
    if processes().rank == 0:
        _warn_of_unknown(model, evaluated, settings.class_list.phrases)
    swept = check_sweep(sweep)
    thresholds = swept_thresholds(settings.threshold) if swept else ()
    rules = other_rules(model, evaluated, settings) if swept == "background" else ()
    return Run(model, evaluated, settings, thresholds, batch, rules)


def _beside(protocol: Protocol, evaluated: EvaluationSet) -> Protocol:
    """The protocol without distractors that the set itself asks for.

    Raises:
        UsageError: there are distractors, and no background that they could count as.
    """
    if protocol.distractors and not evaluated.background:
        raise UsageError(
            f"{evaluated.name} has no background that further classes could count as: ask for its "
            "own classes alone"
        )
    asked = {phrase.casefold() for phrase in protocol.class_list.phrases}
    entries = (entry.split(";") for entry in protocol.distractors)
    kept = ([p.strip() for p in entry if p.strip().casefold() not in asked] for entry in entries)
    return replace(protocol, distractors=tuple("; ".join(entry) for entry in kept if entry))


def measure(
    run: Run, on_progress: Progress | None = None, *, fresh: bool = False
) -> EvaluationResult:
    """The result of a run, the same in every process; arguments and errors as `run.evaluate`."""
    return summarise(run, evaluate(run, on_progress, fresh=fresh))


@contextmanager
def holding_outputs(
    save: str | Path | None = None, report: str | Path | None = None
) -> Iterator[None]:
    """Keep other runs from what `write` will write, in the first process.

    Raises:
        UsageError: another run is at work there, or it is no path of this machine.
        DataError: it cannot be written.
    """
    first = processes().rank == 0
    with ExitStack() as held:
        if save and first:
            held.enter_context(holding_file(Path(save)))
        if report and first:
            held.enter_context(holding(Path(report)))
        yield


def write(
    run: Run,
    result: EvaluationResult,
    save: str | Path | None = None,
    report: str | Path | None = None,
) -> None:
    """Write a result in the first process: as JSON to a file, as a page into a folder, or both."""
    if processes().rank != 0:
        return
    if save:
        result.write(save)
    if report:
        from ovseg.evaluation.report.page import write_report

        write_report(run, result, Path(report))


def classify_folder(
    folder: str | Path,
    model: str | Path | SegmentationModel = "starter",
    device: str = "auto",
    on_progress: Progress | None = None,
) -> ranking.Classification:
    """Zero-shot classification of a folder in ImageNet's layout: top-1 and top-5 accuracy.

    Args:
        folder: as `ranking.read_image_folder` takes it.
        model: a model's name or file, or a model.
        device: as torch names it, or `auto`.
        on_progress: called with images done and in all.

    Raises:
        OvsegError: the folder or the model cannot be read.
    """
    data = ranking.read_image_folder(Path(folder))
    return ranking.classify(model_of(model, device), data, on_progress=on_progress)


def retrieve_folder(
    folder: str | Path,
    model: str | Path | SegmentationModel = "starter",
    device: str = "auto",
    on_progress: Progress | None = None,
) -> ranking.Retrieval:
    """Retrieval of captions by image and of images by caption: recall at 1, 5 and 10.

    Args:
        folder: as `ranking.read_captions` takes it.
        model, device, on_progress: as `classify_folder` takes them.

    Raises:
        OvsegError: the folder or the model cannot be read.
    """
    data = ranking.read_captions(Path(folder))
    return ranking.retrieve(model_of(model, device), data, on_progress=on_progress)


def _warn_of_unknown(
    model: SegmentationModel, evaluated: EvaluationSet, phrases: tuple[str, ...]
) -> None:
    unknown = [entry.phrase for entry in model.unknown(phrases)]
    if unknown:
        shown = ", ".join(unknown[:_SHOWN]) + (", ..." if len(unknown) > _SHOWN else "")
        _log.warning(
            "%s does not know %d of the %d words of %s: %s; their score is 0",
            *(model.card.name, len(unknown), len(phrases), evaluated.name, shown),
        )
