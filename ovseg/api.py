"""The verbs: what the command line does, as functions of Python.

Each puts together what lies below it and returns a typed result; nothing is printed.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from ovseg.errors import UsageError

if TYPE_CHECKING:
    from ovseg.config.dataset import DatasetRecipe
    from ovseg.config.schema import Recipe
    from ovseg.data.dataset.folder import DatasetSummary
    from ovseg.data.workers import Progress
    from ovseg.evaluation.result import EvaluationResult
    from ovseg.export.export import ExportResult
    from ovseg.inference.inputs import ImageLike
    from ovseg.inference.result import Segmentation
    from ovseg.inference.result_folder import SegmentedFiles
    from ovseg.inference.segmenter import Classes
    from ovseg.models.interface import SegmentationModel
    from ovseg.teaching.examples import Example
    from ovseg.training.log import Observer
    from ovseg.training.plan import Plan
    from ovseg.training.run import TrainingResult


@overload
def segment(
    image: "ImageLike",
    classes: "Classes",
    model: str | Path = "starter",
    device: str = "auto",
    **options: Any,
) -> "Segmentation": ...


@overload
def segment(
    image: list[Any] | tuple[Any, ...],
    classes: "Classes",
    model: str | Path = "starter",
    device: str = "auto",
    **options: Any,
) -> "list[Segmentation]": ...


@overload
def segment(
    image: "Iterable[ImageLike]",
    classes: "Classes",
    model: str | Path = "starter",
    device: str = "auto",
    **options: Any,
) -> "Iterator[Segmentation]": ...


def segment(
    image: Any,
    classes: "Classes",
    model: str | Path = "starter",
    device: str = "auto",
    *,
    examples: "Sequence[str | Example]" = (),
    **options: Any,
) -> "Segmentation | list[Segmentation] | Iterator[Segmentation]":
    """Segment an image, or many, by any classes one can name.

    The model is loaded for this call; a `Segmenter` keeps it for many.

    Args:
        image: a path, bytes, an open file, a Pillow image, an array (grey, RGB or RGBA: uint8
            [H, W] or [H, W, C], or floats in 0..1), or a tensor of torch (also [C, H, W]); or a
            list or an iterator of these.
        classes: `cat,dog`, a list of names, a list of lists or a dict for synonyms, or a
            `ClassList`; synonyms in a string are separated by `;`.
        model: a model's name, checkpoint or exported folder.
        device: as torch names it, or `auto`.
        examples: photos that show a class, as `mug=photo.jpg:mask.png` or with a box,
            `mug=photo.jpg:40,60,200,180`; the class is to be among `classes`.
        options: fields of `Protocol`, such as `background=False`.

    Returns:
        one result for one image, a list for a list; for an iterator an iterator, which takes each
        image when its result is asked for.

    Raises:
        OvsegError: the model or an image cannot be read, or the classes make no sense.
    """
    from ovseg.teaching.shown import shown

    return shown(model, device, examples).segment(image, classes, **options)


def segment_files(
    images: Sequence[str],
    classes: "Classes",
    model: str | Path = "starter",
    device: str = "auto",
    *,
    output: Path | None = None,
    save: Sequence[str] = (),
    formats: Sequence[str] = (),
    instances: bool = False,
    polygons: float | None = None,
    min_score: float | None = None,
    min_area: int = 0,
    allow_urls: bool = False,
    batch_size: int = 8,
    examples: "Sequence[str | Example]" = (),
    **options: Any,
) -> "SegmentedFiles":
    """Segment many files; one that fails is reported and the others go on.

    Args:
        images: files, folders (searched in depth) and globs; results that were written before are
            passed over in folders and globs.
        classes, model, device, examples, options: as `segment` takes them.
        output: folder for overlays and label maps; None for none.
        save: what else to write there of each image: `json`, `rle`, `logits`, `groups`; the first
            two bring the format `coco` with them.
        formats: of files with the annotations of all images, which appear when all results were
            taken: `coco`, `yolo`, `labelstudio`, `cvat`, `geojson`, `sam-rle`.
        instances: one region for each part of a class that hangs together, cut at narrow necks,
            instead of one per class; regions, not instances that a model was trained to tell apart.
        polygons: outlines instead of run lengths, at most this many pixels off.
        min_score, min_area: mean score, and pixels, that a part needs; others become background.
        allow_urls: fetch images from http and https addresses, from public hosts alone.
        batch_size: images worked on together.

    Returns:
        the results in order, computed as they are taken.

    Raises:
        OvsegError: no file was found, the model cannot be loaded, or an option makes no sense.
    """
    from ovseg.data.web_images import WebImages
    from ovseg.inference.connected import RegionRules
    from ovseg.inference.protocol import own
    from ovseg.inference.result_folder import ResultFolder, Saving, SegmentedFiles
    from ovseg.inference.result_names import images_to_segment
    from ovseg.inference.segmenter import as_class_list
    from ovseg.teaching.shown import shown

    web = WebImages()
    paths = images_to_segment(images, output, web.path_of if allow_urls else None)
    protocol, asked = own(**options), as_class_list(classes)
    rules = RegionRules(instances, min_score, min_area)
    saving = Saving(save, formats, polygons)
    folder = ResultFolder(output, saving, paths, asked.names) if output else None
    segmenter = shown(model, device, examples)
    results = segmenter.segment_files(paths, asked, protocol, batch_size, web.read)
    return SegmentedFiles(paths, results, folder, rules)


def evaluate(
    name: str,
    data: str | Path,
    model: "str | Path | SegmentationModel" = "starter",
    device: str = "auto",
    *,
    protocol: str | Path | None = None,
    split: str | None = None,
    labels: str | None = None,
    ignore_label: int | str | None = None,
    label_map: Mapping[int, int | None] | str | None = None,
    threshold: float | None = None,
    background_rule: str | None = None,
    background_words: str | Sequence[str] | None = None,
    refine: str | None = None,
    tta: Sequence[str] = (),
    distractors: str | Sequence[str] | None = None,
    sweep: str | bool = "",
    limit: int | None = None,
    batch_size: int = 16,
    save: str | Path | None = None,
    report: str | Path | None = None,
    fresh: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> "EvaluationResult":
    """Evaluate a model on a benchmark set, read from its folder as downloaded.

    A run that was interrupted goes on when it is called again with the same arguments. In processes
    that `accelerate launch` or torchrun has started, each takes its share of the images; all get
    the same result, and the first one writes.

    Args:
        name: of the set, such as `voc`; `ovseg.evaluation.sets.catalogue.SETS` has all.
        data: the set's folder.
        model: a model's name, checkpoint or exported folder, or a model.
        device: as torch names it, or `auto`.
        protocol: `own`, another name of `ovseg.evaluation.protocol.NAMES` such as `sclip`, or a
            TOML file; by default the one that models of this kind are published under.
        split: part of the set; by default that of the papers.
        labels: for `coco-object`, `stuffthingmaps`, `panoptic` or `instances`.
        ignore_label: for `folder`, the value of pixels that are not counted instead of 255, or
            `none` where all are.
        label_map: for `folder`, classes of other values, by their line in the class file from 0:
            `{255: 1}`, or as text `255=1`; None, in text `ignore`, for pixels that are not counted.
        threshold: of the background, instead of the protocol's.
        background_rule: `probability`, `constant` or `words`, instead of the protocol's.
        background_words: phrases that stand for the background, as `segment` takes classes.
        refine: `none`, or steps as `lposs,pamr`, instead of the protocol's.
        tta: views to average over: `flip`, `scales` or both.
        distractors: further classes to ask for at once, as `segment` takes them; a pixel that one
            of them wins counts as background.
        sweep: `threshold`, also the score at other background thresholds, from the same pass;
            `background`, also under every other rule, with thresholds of each.
        limit: only the first images, for a trial.
        batch_size: most windows that go through the encoder at once.
        save: file for the result as JSON.
        report: folder for a page of tables, charts and pictures, `index.html`.
        fresh: forget what an interrupted run has left.
        on_progress: called with images done and in all.

    Returns:
        Counts and scores, shares in 0..1, with all it takes to say what they are of.

    Raises:
        UsageError: there is no such set, split, protocol or augmentation, or another run is writing
            to `save` or `report`.
        DataError: files of the set are missing or damaged.
        OvsegError: the model or the protocol cannot be read.
    """
    from ovseg.evaluation.evaluate import (
        holding_outputs,
        measure,
        model_of,
        prepare,
        protocol_changes,
        write,
    )
    from ovseg.evaluation.sets.catalogue import open_set
    from ovseg.evaluation.sets.stored_values import StoredValues

    changes = protocol_changes(
        threshold, refine, tta, distractors, background_rule, background_words
    )
    values = StoredValues.of(ignore_label, label_map)
    evaluated = open_set(name, Path(data), split, labels, values).first(limit)
    with holding_outputs(save, report):
        run = prepare(
            model_of(model, device),
            evaluated,
            None if protocol is None else str(protocol),
            changes,
            sweep=sweep,
            batch=batch_size,
        )
        result = measure(run, on_progress, fresh=fresh)
        write(run, result, save, report)
    return result


def build_dataset(
    recipe: "str | Path | DatasetRecipe",
    output: str | Path,
    changes: Sequence[str] = (),
    part: tuple[int, int] = (1, 1),
    retry_failures: bool = False,
    progress: "Progress | None" = None,
) -> "DatasetSummary":
    """Build a training set of images and captions, or go on where a build was interrupted.

    The same call after any interruption ends with the same bytes. `ovseg.data` has what is done
    with a data set afterwards: `inspect_dataset`, `merge_datasets`, `publish_dataset`.

    Args:
        recipe: a TOML file, the name of a recipe that ships with ovseg, such as `flickr8k`, a
            source (`cc12m`, a table, a folder), or what `ovseg.data.load_request` made of one.
        output: folder of the data set, or any fsspec address.
        changes: `section.key=value` each, in TOML's syntax, such as `entities.source=paper100`.
        part: (i, n) builds the i-th of n parts only, from 1; `merge_datasets` joins them.
        retry_failures: fetch again what failed before; what is here stays.
        progress: called with the step, how much of it is done, and how much there is or None.

    Returns:
        Counts of captions, shards, pairs and failures, and sizes in bytes.

    Raises:
        RecipeError: the recipe or a change is wrong, with one problem per mistake.
        UsageError: `output` holds something else.
        DataError: the source cannot be read, or `output` cannot be written.
        MissingDependencyError: the extra `data`, or `download` to fetch, is not installed.
    """
    from ovseg.data.build import request
    from ovseg.data.workers import silent

    if isinstance(recipe, str | Path):
        recipe = request.load_request(recipe, changes)
    elif changes:
        raise UsageError("changes are for recipes by name: change this one when it is loaded")
    return request.build_dataset(recipe, output, part, retry_failures, progress or silent)


def export_model(
    model: str | Path,
    output: str | Path,
    format: str = "onnx",
    *,
    end_to_end: bool = False,
    hub_layout: bool = False,
    images: Sequence[str] = (),
    on_step: "Callable[[str], None]" = lambda _: None,
) -> "ExportResult":
    """Export a model to a folder that runs without torch, and prove that it gives the same labels.

    The written graphs are read back and compared with the model on photos. Nothing appears at
    `output` before labels agree on 99 % of the pixels (98 % in eight bits); an export that was
    there is then replaced.

    Args:
        model: a model's name or checkpoint.
        output: the folder to write.
        format: `onnx`, `onnx-int8`, `openvino`, `torchscript`, `torch-export`, or `web`: a page.
        end_to_end: also write a graph from a whole photo, uint8 [H, W, 3], to its label map.
        hub_layout: lay the folder out for the Hugging Face hub, with a model card.
        images: files, folders or globs to verify and calibrate with; photos of the package if there
            are none.
        on_step: told what is being done.

    Returns:
        The folder, sizes of its files in bytes, and what verifying measured: labels that agree as
        shares in 0..1, differences of scores, and times in seconds.

    Raises:
        UsageError: options that do not go together, `output` is something else than an export, or
            another run is writing it.
        ModelError: the model cannot be exported, or the export does not give its labels.
        MissingDependencyError: a package is missing that the format needs.
        DataError: an image cannot be read, or the folder cannot be written.
    """
    from ovseg.data.images import find_images
    from ovseg.export.export import WEB, ExportOptions, check_format, check_request, export_loaded
    from ovseg.export.web import export_web
    from ovseg.models.registry import load_model

    options = ExportOptions(
        format="onnx" if format == WEB else check_format(format),
        end_to_end=end_to_end,
        hub_layout=hub_layout,
        images=tuple(find_images(images)) if images else (),
    )
    if format == WEB:
        return export_web(str(model), Path(output), options, on_step)
    check_request(Path(output), options)
    on_step(f"loading {model}")
    loaded = load_model(model, "cpu", in_torch=True)
    return export_loaded(loaded, Path(output), options, on_step)


def pretrain(
    recipe: "str | Path | Recipe",
    output: str | Path | None = None,
    overrides: Sequence[str] = (),
    resume: Literal["never", "auto"] = "never",
    data_root: str | Path | None = None,
    observer: "Observer | None" = None,
) -> "TrainingResult":
    """Train a model on image-caption pairs, as a recipe says.

    In processes that `accelerate launch` or torchrun has started, each takes its share of every
    batch; all get the same result, and the first one writes. SIGTERM and SIGUSR1 save at the next
    step and end the training.

    Args:
        recipe: a recipe's name, such as `cc4m`, a TOML file, or a recipe.
        output: the run's folder; `runs/RECIPE` by default. It gets checkpoints, a log, overlays,
            `last.safetensors`, and `best.safetensors` if the recipe names an evaluation.
        overrides: `section.key=value` each, in TOML's syntax; for recipes by name or file.
        resume: `auto` goes on from the newest complete checkpoint in `output`, if there is one;
            `never` wants none there.
        data_root: folder of the set that `train.evaluate_on` names, for a score after each epoch.
        observer: told what happens; every method is called in the first process only.

    Returns:
        Steps done, the signal that asked to stop, if one did, and the best score, 0..1.

    Raises:
        RecipeError: the recipe is wrong, with one problem per mistake, or is not the checkpoint's.
        UsageError: `output` holds a run, or another is at work there, or the evaluation's set is
            not given.
        DataError: data or checkpoints are missing, damaged or cannot be written.
        DivergedError: too many steps in a row were not finite.
        PeerError: another process has raised one of these.
    """
    from ovseg.evaluation.epochs import epoch_evaluation
    from ovseg.training.run import train

    loaded = _recipe_of(recipe, overrides)
    if output is None:
        output = Path("runs") / (Path(recipe).stem if isinstance(recipe, str | Path) else "recipe")
    evaluate = epoch_evaluation(loaded, _path(data_root))
    return train(loaded, Path(output), resume=resume, evaluate=evaluate, observer=observer)


def plan_pretraining(
    recipe: "str | Path | Recipe", overrides: Sequence[str] = (), processes: int = 1
) -> "Plan":
    """What `pretrain` would do: steps, samples, FLOPs, bytes of memory, seconds.

    Args:
        recipe, overrides: as for `pretrain`.
        processes: how many devices like this machine's share the run.

    Raises:
        RecipeError, DataError: what would stop the run.
    """
    from ovseg.training.plan import plan_run

    return plan_run(_recipe_of(recipe, overrides), processes)


def check_pretraining(
    recipe: "str | Path | Recipe",
    overrides: Sequence[str] = (),
    processes: int = 1,
    data_root: str | Path | None = None,
) -> None:
    """Find at once what would stop every process of `pretrain`; builds no model.

    Args:
        recipe, overrides, data_root: as for `pretrain`.
        processes: how many will share the run.

    Raises:
        RecipeError, UsageError, DataError: as `pretrain`.
    """
    from ovseg.evaluation.epochs import epoch_evaluation
    from ovseg.training.feed.source import open_source, share_of

    loaded = _recipe_of(recipe, overrides)
    epoch_evaluation(loaded, _path(data_root))
    open_source(loaded).steps_per_epoch(loaded, share_of(loaded, 0, processes))


def _recipe_of(recipe: "str | Path | Recipe", overrides: Sequence[str]) -> "Recipe":
    from ovseg.config.load import load_recipe

    if isinstance(recipe, str | Path):
        return load_recipe(recipe, overrides)
    if overrides:
        raise UsageError("overrides are for recipes by name: change this one when it is loaded")
    return recipe


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)
