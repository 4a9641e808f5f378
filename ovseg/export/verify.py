"""An export is kept only if it gives the labels that the model gives.

Every written image graph is read back and run beside the model on photos at several sizes; exports
that ovseg can run also go through a `Segmenter` from image file to label map.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch

from ovseg.data.class_list import ClassList
from ovseg.data.images import Pixels, read_image, resize, resized_shape
from ovseg.errors import ModelError
from ovseg.export.end_to_end import OUTPUTS as PHOTO_OUTPUTS
from ovseg.export.graphs import NO_BACKGROUND, Found
from ovseg.export.source import ExportSource
from ovseg.export.writers import Inputs, Program, TorchProgram
from ovseg.inference.protocol import ONE_PASS, own
from ovseg.inference.segmenter import Segmenter
from ovseg.inference.views import normalised
from ovseg.models.interface import SegmentationModel, is_dense
from ovseg.models.runtimes import Runtime, open_graph

BUNDLED = ("chelsea.jpg", "coffee.jpg", "astronaut.jpg")
LEAST_AGREEMENT = {"onnx-int8": 0.98}
LEAST_AGREEMENT_OTHERWISE = 0.99
VOCABULARY = "voc"
REPEATS = 3


@dataclass(frozen=True)
class Reference:
    """An image as it reaches the graph, and what the model itself makes of it.

    Attributes:
        name: of the image.
        inputs: of the graph: pixels, class embeddings, threshold.
        found: the outputs wanted.
    """

    name: str
    inputs: Inputs = field(repr=False)
    found: Found = field(repr=False)


@dataclass(frozen=True)
class Agreement:
    """How alike two answers are.

    Attributes:
        difference: largest difference of a score, -inf columns left out.
        same_labels: share of pixels with the same label, 0..1.
    """

    difference: float
    same_labels: float


def compare(wanted: Found, found: Found) -> Agreement:
    """Compare scores and labels; answers of other shapes agree nowhere."""
    if wanted.labels.shape != found.labels.shape or wanted.scores.shape != found.scores.shape:
        return Agreement(float("inf"), 0.0)
    apart = (wanted.scores - found.scores).abs()
    apart = apart[torch.isfinite(wanted.scores)]
    same = (wanted.labels == found.labels).double().mean()
    return Agreement(float(apart.max()), float(same))


def timed(call: Callable[[], object]) -> float:
    """Seconds that a call takes: the median of a few. Whoever wants no cold one calls it before."""
    times = []
    for _ in range(REPEATS):
        start = perf_counter()
        call()
        times.append(perf_counter() - start)
    return median(times)


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        what: `graph`; `segmenter` for the way from image to label map as `ovseg segment` goes it;
            `end-to-end` for the graph that goes it by itself.
        image: its name.
        height, width: of what was compared, in pixels.
        difference: largest difference of a score.
        agreement: share of pixels with the same label, 0..1.
        seconds, model_seconds: of the export and of the model in torch, side by side.
    """

    what: str
    image: str
    height: int
    width: int
    difference: float
    agreement: float
    seconds: float
    model_seconds: float


@dataclass(frozen=True)
class Report:
    """What verifying an export measured.

    Attributes:
        rows: one per image and size, and per image through the segmenter.
        least_agreement: what every row must reach.
        text_difference: largest difference of a class embedding; None for closed vocabularies and
            for formats that ovseg does not run.
        threads: that both sides computed with.
    """

    rows: tuple[Row, ...]
    least_agreement: float
    text_difference: float | None
    threads: int

    @property
    def agreement(self) -> float:
        """The lowest share of pixels with the same label."""
        return min(row.agreement for row in self.rows)

    @property
    def difference(self) -> float:
        """The largest difference of a score."""
        return max(row.difference for row in self.rows)

    def to_values(self) -> dict[str, Any]:
        """For `export.json`."""
        summary = {"label_agreement": self.agreement, "largest_difference": self.difference}
        return {**summary, **asdict(self)}


class Verifier:
    """Compares exports of one model with it.

    Args:
        source: the model taken apart.
        images: files to compare on; photos of the package if there are none.
        format: which decides how much may differ.
    """

    def __init__(self, source: ExportSource, images: Sequence[Path], format: str) -> None:
        self._source = source
        self._images = dict(photos(images))
        self.least_agreement = LEAST_AGREEMENT.get(format, LEAST_AGREEMENT_OTHERWISE)
        self._model = TorchProgram(source.image)
        self._vocabulary = _known(source.model, ClassList.vocabulary(VOCABULARY))
        self._options = own(templates=source.model.templates[:1])
        self.references = list(self._references())

    def check(
        self, program: Program, exported: SegmentationModel | None, whole: Path | None = None
    ) -> Report:
        """Measure an export and refuse it if labels differ.

        Args:
            program: the image graph, read back.
            exported: the whole export; None if ovseg does not run its format.
            whole: file of the graph for whole photos, if there is one.

        Raises:
            ModelError: labels agree on too few pixels.
        """
        rows = [self._row(program, reference) for reference in self.references]
        text = None
        if exported is not None:
            rows += self._segmented(exported)
            text = self._text_difference(exported)
        if whole is not None:
            rows += self._end_to_end(open_graph(whole))
        report = Report(tuple(rows), self.least_agreement, text, torch.get_num_threads())
        if report.agreement < self.least_agreement:
            worst = min(rows, key=lambda row: row.agreement)
            raise ModelError(
                f"the export is not kept: {worst.what} of {worst.image} at "
                f"{worst.height}x{worst.width}: only "
                f"{worst.agreement:.2%} of the labels are the model's, and "
                f"{self.least_agreement:.0%} are wanted"
            )
        return report

    def _references(self) -> Iterator[Reference]:
        rule = self._source.model.preprocessing
        classes, threshold = self._classes(), self._source.model.threshold
        views = ((rule.short_side // 2, NO_BACKGROUND), (rule.short_side, threshold))
        for name, image in self._images.items():
            for side, bound in views:
                height, width = image.shape[:2]
                shape = resized_shape(height, width, side, rule.long_side, rule.multiple_of)
                pixels = normalised(resize(image, shape), rule)
                inputs: Inputs = {
                    "pixels": pixels[None],
                    "class_embeddings": classes,
                    "threshold": np.array(bound, np.float32),
                }
                yield Reference(name, inputs, self._model(inputs))

    def _classes(self) -> np.ndarray:
        return self._embedded_by(self._source.model)

    def _embedded_by(self, model: SegmentationModel) -> np.ndarray:
        templates = self._options.templates or ()
        return np.asarray(model.encode_text(self._vocabulary.phrases, templates), np.float32)

    def _row(self, program: Program, reference: Reference) -> Row:
        agreement = compare(reference.found, program(reference.inputs))
        height, width = reference.inputs["pixels"].shape[2:]
        return Row(
            "graph",
            reference.name,
            height,
            width,
            difference=agreement.difference,
            agreement=agreement.same_labels,
            seconds=timed(lambda: program(reference.inputs)),
            model_seconds=timed(lambda: self._model(reference.inputs)),
        )

    def _segmented(self, exported: SegmentationModel) -> Iterator[Row]:
        """Both models from image to label map, as `ovseg segment` runs them."""
        classes = self._vocabulary
        ours, theirs = Segmenter(self._source.model), Segmenter(exported)
        for name, image in self._images.items():
            wanted = ours.segment(image, classes, self._options)
            found = theirs.segment(image, classes, self._options)
            seen = np.isfinite(wanted.group_scores)
            apart = np.abs(wanted.group_scores[seen] - found.group_scores[seen])
            yield Row(
                "segmenter",
                name,
                image.shape[0],
                image.shape[1],
                difference=float(apart.max()),
                agreement=float((wanted.labels == found.labels).mean()),
                seconds=timed(partial(theirs.segment, image, classes, self._options)),
                model_seconds=timed(partial(ours.segment, image, classes, self._options)),
            )

    def _end_to_end(self, graph: Runtime) -> Iterator[Row]:
        """The graph for whole photos against the model in one pass."""
        segmenter = Segmenter(self._source.model)
        options = replace(
            self._options,
            window=ONE_PASS,
            stride=ONE_PASS,
            background=not self._asks_for_words(),
        )
        for name, image in self._images.items():
            wanted = segmenter.segment(image, self._vocabulary, options)
            run = partial(graph.run, PHOTO_OUTPUTS, self._photo(image))
            labels, _, scores = run()
            seen = np.isfinite(wanted.group_scores)
            # A dense model's segmenter has probabilities, where its graph has scaled cosines.
            dense = self._asks_for_words()
            apart = np.zeros(1) if dense else np.abs(wanted.group_scores - scores)[seen]
            yield Row(
                "end-to-end",
                name,
                image.shape[0],
                image.shape[1],
                difference=float(apart.max()),
                agreement=float((wanted.labels == labels).mean()),
                seconds=timed(run),
                model_seconds=timed(partial(segmenter.segment, image, self._vocabulary, options)),
            )

    def _photo(self, image: Pixels) -> dict[str, np.ndarray]:
        bound = NO_BACKGROUND if self._asks_for_words() else self._source.model.threshold
        threshold = np.array(bound, np.float32)
        return {"image": image, "class_embeddings": self._classes(), "threshold": threshold}

    def _asks_for_words(self) -> bool:
        """Whether a `Segmenter` adds words for the background, which a graph leaves to callers."""
        return is_dense(self._source.model)

    def _text_difference(self, exported: SegmentationModel) -> float | None:
        if self._source.text is None:
            return None
        return float(np.abs(self._embedded_by(exported) - self._classes()).max())


def _known(model: SegmentationModel, classes: ClassList) -> ClassList:
    """The classes that a model knows a word for."""
    unknown = {one.phrase for one in model.unknown(classes.phrases)}
    return ClassList.of([name for name in classes.names if name not in unknown])


def photos(paths: Sequence[Path]) -> Iterator[tuple[str, Pixels]]:
    if paths:
        yield from ((path.name, read_image(path)) for path in paths)
        return
    folder = files("ovseg.export") / "images"
    for name in BUNDLED:
        with as_file(folder / name) as path:
            yield name, read_image(path)
