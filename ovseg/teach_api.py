"""The verb for teaching: a model learns classes from photos with masks."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovseg.errors import UsageError

if TYPE_CHECKING:
    from ovseg.teaching.teach import TeachingResult


def _silent(step: str, done: int, total: int | None) -> None:
    del step, done, total


def teach(
    model: str | Path,
    data: str | Path,
    output: str | Path,
    *,
    set_name: str = "folder",
    split: str | None = None,
    classes: str | Sequence[str] | None = None,
    stuff: str | Sequence[str] = (),
    unlabelled: str | Path | None = None,
    ignore_label: int | str | None = None,
    label_map: Mapping[int, int | None] | str | None = None,
    limit: int | None = None,
    licence: str = "",
    device: str = "auto",
    resume: bool = False,
    on_step: Callable[[str, int, int | None], None] = _silent,
    **settings: Any,
) -> "TeachingResult":
    """Teach a model classes by masks, and write a model that knows them.

    The result is one file, which `segment`, `evaluate` and `export_model` take. Classes that were
    not taught are found by their words: as before, unless the tower is updated (`lora=8`).

    Args:
        model: a model's name or checkpoint.
        data: the set's folder.
        output: the .safetensors file to write; what is there is not overwritten.
        set_name: what the folder holds, as `evaluate` takes it.
        split, ignore_label, label_map, limit: as `evaluate` takes them.
        classes: those of the set that are taught, as `segment` takes them; all by default.
        stuff: those of them that are background, such as grass: where they are found is background
            for whatever else is asked for, and what the model's own words say of them is replaced.
        unlabelled: folder of photos without masks. What the model is sure of in them, calibrated on
            photos that were held out, is learned too, if that helps there.
        licence: SPDX expression of the photos' licence, for the record.
        device: as torch names it, or `auto`.
        resume: go on where an interrupted teaching has stopped.
        on_step: told the step, how much of it is done, and how much there is.
        settings: fields of `TeachingSettings`, such as `lora`, the rank of updates of the tower
            that are learned, too, where they help on photos that were held out.

    Returns:
        What was taught, and scores on photos that were held out, shares in 0..1.

    Raises:
        UsageError: `output` exists or another run is writing it, classes are asked for that the set
            has no masks of, `stuff` is not taught, a setting makes no sense, `unlabelled` or `lora`
            is given with one photo that has a mask, or both are, or the model's tower cannot be
            updated.
        DataError: photos or masks are missing or damaged.
        ModelError: the model cannot be read, or the result cannot be written.
        MissingDependencyError: torch is not installed, which the position head needs, and so do
            updates of the tower; `hidden=0` without `lora` does without.
    """
    from ovseg.evaluation.sets.catalogue import open_set
    from ovseg.evaluation.sets.stored_values import StoredValues
    from ovseg.inference.segmenter import as_class_list
    from ovseg.teaching.settings import TeachingSettings
    from ovseg.teaching.teach import teach_set

    if unknown := set(settings) - set(TeachingSettings.__dataclass_fields__):
        raise UsageError(f"no such setting: {', '.join(sorted(unknown))}")
    values = StoredValues.of(ignore_label, label_map)
    evaluated = open_set(set_name, Path(data), split, None, values).first(limit)
    return teach_set(
        model,
        evaluated,
        Path(output),
        classes=None if classes is None else as_class_list(classes).names,
        stuff=as_class_list(stuff).names if stuff else (),
        unlabelled=None if unlabelled is None else Path(unlabelled),
        licence=licence,
        settings=TeachingSettings(**settings),
        device=device,
        resume=resume,
        on_step=on_step,
    )
