"""`ovseg teach`: from photos with masks to a model that knows their classes."""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ovseg.errors import DataError, UsageError
from ovseg.evaluation.sets.base import EvaluationSample, EvaluationSet
from ovseg.files import file_digest, local_path, write_text
from ovseg.locks import holding_file
from ovseg.models.interface import SegmentationModel
from ovseg.models.registry import load_model
from ovseg.models.taught.factors import Updates
from ovseg.models.taught.file import TeachingNote, base_hash, write_taught
from ovseg.models.taught.head import LearnedHead
from ovseg.models.taught.taught_model import KIND
from ovseg.teaching.fitting import Fitted, Fitting
from ovseg.teaching.lessons import Curriculum, Lesson, LessonStore, Teacher
from ovseg.teaching.semi_supervised import SemiSupervised
from ovseg.teaching.settings import TeachingSettings
from ovseg.teaching.unlabelled import UnlabelledLesson, UnlabelledTeacher, photos_without_masks

_log = logging.getLogger(__name__)

Progress = Callable[[str, int, int | None], None]
_REQUEST = "request.json"


@dataclass(frozen=True)
class TeachingResult:
    """What a teaching left behind.

    Attributes:
        output: the model's file.
        photos: how many were learned from.
        classes: that were taught.
        unseen: classes of the set of which no photo shows a pixel; they keep their words.
        held_out: mIoU on photos that were held out, 0..1, by name: of words alone, of the closed
            form, of all together, and of all with photos without masks.
        weights: of the mixture, by name.
        unlabelled: what photos without masks are worth, by name; empty where there are none.
        lora: what updates of the tower are worth, by name; empty where none were asked for.
    """

    output: Path
    photos: int
    classes: tuple[str, ...]
    unseen: tuple[str, ...]
    held_out: dict[str, float]
    weights: dict[str, float]
    unlabelled: dict[str, Any]
    lora: dict[str, Any]


def teach_set(
    model: str | Path,
    evaluated: EvaluationSet,
    output: Path,
    *,
    classes: Sequence[str] | None = None,
    stuff: Sequence[str] = (),
    unlabelled: Path | None = None,
    licence: str = "",
    settings: TeachingSettings | None = None,
    device: str = "auto",
    resume: bool = False,
    on_step: Progress,
) -> TeachingResult:
    """Teach a model the classes of a set.

    Args:
        model: a model's name or file.
        evaluated: photos with masks.
        output: the file to write.
        classes: those of the set that are taught; all by default.
        stuff: those of them that are background.
        unlabelled: folder of photos without masks to learn from, too.
        licence: SPDX expression of the photos and masks, for the record.
        settings: how.
        device: as torch names it, or `auto`.
        resume: go on where an interrupted teaching of the same kind has stopped.
        on_step: told the step, how much of it is done, and how much there is.

    Raises:
        UsageError: as `ovseg.teach`.
        OvsegError: a model, photo or mask cannot be read.
    """
    settings = settings or TeachingSettings()
    _check_output(output)
    curriculum = Curriculum.of(evaluated, classes, stuff)
    if not evaluated.samples:
        raise DataError(f"{evaluated.root}: the set has no images")
    base = load_model(model, device, in_torch=settings.lora > 0)
    if base.card.kind == KIND:
        raise UsageError(f"{model} was taught already: teach its base with all masks at once")
    if settings.lora:
        _check_updates(base, evaluated, unlabelled)
    identity, checkpoint = _identity(model, base)
    beside = None if unlabelled is None else WithoutMasks.of(unlabelled, evaluated)
    request = _request(identity, curriculum, settings, beside)
    background = bool((curriculum.columns == 0).any())
    with holding_file(output), _work_folder(output, request, resume) as folder:
        store = LessonStore(folder, evaluated.samples, Lesson)
        teacher = Teacher(base, curriculum)
        store.make(teacher, partial(on_step, "reading"))
        places = [*map(curriculum.classes.names.index, curriculum.stuff)]
        fitting = Fitting(len(store.samples), store.read, settings, background, on_step, places)
        updates: Updates = {}
        worth: dict[str, dict[str, Any]] = {}
        if settings.lora:
            from ovseg.teaching.tower_updates import TowerUpdating

            found, gain, updates = TowerUpdating(fitting, store, teacher).fit()
            worth["lora"] = asdict(gain)
        elif beside is not None:
            unmasked = UnlabelledTeacher(base, curriculum)
            found, worth["unlabelled"] = beside.fit(fitting, folder, unmasked)
        else:
            found = fitting.fit()
        note = _note(base, identity, curriculum, found, settings, store, licence, worth)
        write_taught(output, note, seen_alone(found), checkpoint, updates)
    unseen = [
        n for n, there in zip(curriculum.classes.names, found.seen[1:], strict=True) if not there
    ]
    return TeachingResult(
        output=output,
        photos=len(evaluated.samples),
        classes=tuple(each[0] for each in note.classes),
        unseen=tuple(unseen),
        held_out=found.scores,
        weights=asdict(found.mixture),
        unlabelled=worth.get("unlabelled", {}),
        lora=worth.get("lora", {}),
    )


@dataclass(frozen=True)
class WithoutMasks:
    """Photos without masks.

    Attributes:
        samples: the photos.
        left_out: how many are not learned from, by reason.
    """

    samples: tuple[EvaluationSample, ...]
    left_out: dict[str, int]

    @classmethod
    def of(cls, folder: Path, evaluated: EvaluationSet) -> "WithoutMasks":
        """Those of a folder.

        Raises:
            UsageError: too few photos have masks to hold some out.
            DataError: as `photos_without_masks`.
        """
        if len(evaluated.samples) < 2:
            raise UsageError(
                "photos without masks are learned from where that helps on photos that were held "
                "out: two with masks at least are needed; teach without --unlabelled"
            )
        return cls(*photos_without_masks(folder, evaluated.samples))

    def fit(
        self, fitting: Fitting, folder: Path, teacher: UnlabelledTeacher
    ) -> tuple[Fitted, dict[str, Any]]:
        """Fit with them, and what they are worth, by name."""
        store = LessonStore(folder / "unlabelled", self.samples, UnlabelledLesson)
        store.make(teacher, partial(fitting.on_step, "reading photos without masks"))
        found, worth = SemiSupervised(fitting, len(self.samples), store.read).fit()
        return found, {**asdict(worth), "left_out": self.left_out, "sha256": store.digest}


def _check_output(output: Path) -> None:
    local_path(output)
    if output.suffix != ".safetensors":
        raise UsageError(f"{output}: a taught model is a .safetensors file: name it so")
    if output.exists():
        raise UsageError(f"{output} exists and is not overwritten: give another --output")


def _check_updates(
    base: SegmentationModel, evaluated: EvaluationSet, unlabelled: Path | None
) -> None:
    """Refuse updates of a tower that cannot be had."""
    from ovseg.models.taught.low_rank import require_tunable

    if unlabelled is not None:
        raise UsageError("--lora and --unlabelled do not go together yet: choose one of them")
    if len(evaluated.samples) < 2:
        raise UsageError(
            "the tower is updated where that helps on photos that were held out: two with masks "
            "at least are needed; teach without --lora"
        )
    require_tunable(base)


def _identity(model: str | Path, base: SegmentationModel) -> tuple[dict[str, str], Path | None]:
    """Name and hash of the base, and its file where that goes into the result."""
    path = Path(model)
    if path.is_dir():
        raise UsageError(f"{model} is an export: teach the model that it was made from")
    if not path.is_file():
        return {"base": str(model), "base_hash": base_hash(str(model), base)}, None
    if path.suffix != ".safetensors":
        raise UsageError(f"{model}: convert it first: ovseg models convert {model} OUT.safetensors")
    return {"base": path.name, "base_hash": file_digest(path)}, path


def _request(
    identity: dict[str, str],
    what: Curriculum,
    settings: TeachingSettings,
    beside: WithoutMasks | None,
) -> str:
    """What makes one teaching another, as JSON."""
    values: dict[str, Any] = {
        **identity,
        "classes": what.classes.synonyms,
        "columns": what.columns.tolist(),
        "stuff": what.stuff,
        "settings": asdict(settings),
        "photos": [
            (sample.name, str(sample.image), sample.key) for sample in what.evaluated.samples
        ],
    }
    if beside is not None:
        values["unlabelled"] = [(each.name, str(each.image)) for each in beside.samples]
    return json.dumps(values, sort_keys=True)


@contextmanager
def _work_folder(output: Path, request: str, resume: bool) -> Iterator[Path]:
    """Where lessons lie until the result is written; it stays where the teaching is interrupted.

    Raises:
        UsageError: an interrupted teaching is there and is not to be resumed, or is another one.
    """
    folder = output.with_name(f"{output.name}.teaching")
    note = folder / _REQUEST
    digest = hashlib.sha256(request.encode()).hexdigest()
    if folder.exists() and not resume:
        raise UsageError(
            f"{folder} holds an interrupted teaching: --resume goes on; or delete that folder"
        )
    if note.is_file() and note.read_text(encoding="utf-8") != digest:
        raise UsageError(
            f"{folder} holds the teaching of other photos, classes or settings: delete it, or "
            "repeat the command that was interrupted"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(note, digest)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written: {error.strerror or error}") from error
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def seen_alone(found: Fitted) -> LearnedHead:
    """The head of the classes that were seen; the others keep their words."""
    kept = np.flatnonzero(found.seen[1:]) + 1
    if not len(kept):
        raise DataError("no photo shows a pixel of any class: nothing was taught")
    columns = np.concatenate([[0], kept])
    head = found.head
    return replace(
        head,
        linear=head.linear[:, columns],
        bias=head.bias[columns],
        outer=head.outer[:, columns],
    )


def _note(
    base: SegmentationModel,
    identity: dict[str, str],
    curriculum: Curriculum,
    found: Fitted,
    settings: TeachingSettings,
    store: LessonStore,
    licence: str,
    worth: dict[str, dict[str, Any]],
) -> TeachingNote:
    taught = [
        phrases
        for phrases, there in zip(curriculum.classes.synonyms, found.seen[1:], strict=True)
        if there
    ]
    evaluated, photos = curriculum.evaluated, len(store.samples)
    data: dict[str, Any] = {
        "set": evaluated.name,
        "folder": evaluated.root.resolve().name,
        "labels": evaluated.labels_from,
        "photos": photos,
        "sha256": store.digest,
        "licence": licence,
        **worth,
    }
    return TeachingNote(
        base=identity["base"],
        base_hash=identity["base_hash"],
        classes=tuple(taught),
        text=found.text,
        doubt=found.mixture.doubt,
        stuff=tuple(each[0] for each in taught if each[0] in curriculum.stuff),
        recipe={"settings": asdict(settings), "mixture": asdict(found.mixture)},
        data=data,
        held_out={"folds": min(settings.folds, photos), "mIoU": found.scores},
        description=f"{base.card.name}, taught {len(taught)} classes by masks of {photos} photos",
        licence=" AND ".join(part for part in (base.card.licence, licence) if part),
    )
