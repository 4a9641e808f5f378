"""An exported folder as a segmentation model: NumPy arrays, ONNX Runtime or OpenVINO, no torch.

Letters: B image, G group, Q phrase, T prompt, L token, C embedding width, H W pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ovseg.distributed import one_blas_thread
from ovseg.documents import read_text
from ovseg.errors import MissingDependencyError, ModelError
from ovseg.models.enlarging import to_grid
from ovseg.models.interface import (
    DenseReading,
    GroupedImage,
    ModelCard,
    PartlyKnown,
    Preprocessing,
    UnknownPhrase,
)
from ovseg.models.manifest import (
    WORDS_FOLDER,
    Manifest,
    TextRule,
    folder_hash,
    read_manifest,
)
from ovseg.models.onnx_file import check_onnx
from ovseg.models.runtimes import open_graph
from ovseg.models.scoring import (
    Cleaning,
    Weights,
    aligned_scores,
    dense_clip_scores,
    ovsegmentor_scores,
    starter_scores,
)
from ovseg.models.starter.words import WordTable
from ovseg.models.taught.stuff import scores_beside_stuff
from ovseg.models.taught.taught_names import TaughtNames
from ovseg.models.trial import try_tokenizer

Floats = npt.NDArray[np.floating]

PROMPTS_PER_BATCH = 256
_MAX_TOKENIZER_BYTES = 32 << 20
RUNNABLE = ("onnx", "onnx-int8", "openvino")
_WITH_GROUPS = ("ovsegmentor", "groupvit")


def read_exported(folder: Path, device: str = "auto") -> "ExportedModel":
    """Open an exported folder.

    Raises:
        ModelError: it is damaged or incomplete, in a format that is run by torch itself, or its
            graphs reach for other files or operators than those of an export.
        UsageError: the device is not one its runtime has here.
    """
    manifest = read_manifest(folder)
    if manifest.format not in RUNNABLE:
        raise ModelError(
            f"{folder}: a {manifest.format} export is a program, for applications that load it "
            "themselves; segment with the checkpoint, or with an export in the format onnx"
        )
    content_hash = folder_hash(folder)
    if manifest.format != "openvino":
        graphs = [manifest.image_graph, *([manifest.text.graph] if manifest.text else [])]
        for name in graphs:
            check_onnx(folder / name)
    if manifest.reading is not None:
        return ExportedDenseModel(folder, manifest, device, content_hash)
    return ExportedModel(folder, manifest, device, content_hash)


class ExportedModel:
    """Implements `SegmentationModel` on the graphs of a folder.

    Args:
        folder: where the graphs are.
        manifest: its `export.json`.
        device: as torch names it.
        content_hash: of the folder as it is; what the manifest claims by default.
    """

    def __init__(
        self, folder: Path, manifest: Manifest, device: str = "auto", content_hash: str = ""
    ) -> None:
        self.folder = folder
        self.manifest = manifest
        self._content_hash = content_hash
        self._open(device)

    def _open(self, device: str) -> None:
        self._image = open_graph(self.folder / self.manifest.image_graph, device)
        text = self.manifest.text
        self._text = TextEmbedder(self.folder, text, device) if text else None

    @property
    def card(self) -> ModelCard:
        return self.manifest.model_card(self.folder, self._content_hash)

    @property
    def preprocessing(self) -> Preprocessing:
        return self.manifest.pixels.preprocessing

    @property
    def templates(self) -> tuple[str, ...]:
        return self.manifest.templates

    @property
    def threshold(self) -> float:
        return self.manifest.threshold

    def to(self, device: str) -> "ExportedModel":
        """Open the graphs on another device, and return self."""
        self._open(device)
        return self

    def from_numpy(self, values: npt.NDArray) -> npt.NDArray[np.float32]:
        """The values themselves, in float32."""
        return np.ascontiguousarray(values, dtype=np.float32)

    def encode_image(self, pixels: npt.NDArray[np.float32]) -> GroupedImage:
        """Group normalised images, float32 [B, 3, H, W].

        Raises:
            ModelError: a side is no multiple of what the model needs.
        """
        rows, columns = pixels.shape[-2:]
        rule = self.manifest.pixels
        if rows % rule.multiple_of or columns % rule.multiple_of:
            raise ModelError(
                f"image of {rows}x{columns} pixels: both sides must be multiples of "
                f"{rule.multiple_of}; resize it first"
            )
        # No class is asked for yet: a placeholder stands in for the inputs that classes have.
        nothing = np.zeros((1, self.manifest.embedding_width), np.float32)
        wanted = self._outputs()
        found = self._image.run(
            wanted,
            {"pixels": pixels, "class_embeddings": nothing, "threshold": np.zeros((), np.float32)},
        )
        grid = rule.grid(rows, columns)
        arrays = dict(zip(wanted, found, strict=True))
        self._check_shapes(len(pixels), grid, arrays)
        return GroupedImage(grid=grid, **arrays)

    def _outputs(self) -> list[str]:
        """Outputs of the image graph that a `GroupedImage` consists of."""
        aligned = self.manifest.aligned
        names = ["embedding"]
        if self.manifest.kind in _WITH_GROUPS or (aligned is not None and aligned.groups):
            names += ["assignment", "image_embedding"]
        if aligned is not None and aligned.clean:
            names += ["heads", "attention"]
        if self.manifest.features:
            names.append("features")
        if self.manifest.stages:
            names.append("stages")
        if self.manifest.weights:
            names.append("weights")
        return names

    def _check_shapes(
        self, images: int, grid: tuple[int, int], arrays: Mapping[str, Floats]
    ) -> None:
        """Refuse a graph whose answer is not what its description says."""
        positions, width = grid[0] * grid[1], self.manifest.embedding_width
        embedding, features = arrays["embedding"], arrays.get("features")
        grouped = "assignment" in arrays and embedding.ndim == 3
        groups = embedding.shape[1] if grouped else positions
        if "weights" in arrays and features is not None and features.ndim == 3:
            groups, width = features.shape[1], width - 2  # of which the weights say what they count
        promised = {
            "embedding": (images, groups, width),
            "assignment": (images, groups, positions),
            "image_embedding": (images, width),
            "weights": (images, positions, 3),
        }
        if features is not None and (features.ndim != 3 or positions % (features.shape[1] or -1)):
            raise ModelError(
                f"{self.folder}: its image graph gives features of {features.shape} for "
                f"{positions} positions: export the model again"
            )
        for name, array in arrays.items():
            if array.shape != promised.get(name, (images, *array.shape[1:])):
                raise ModelError(
                    f"{self.folder}: its image graph gives {name} of the shape {array.shape} where "
                    f"its description promises {promised.get(name)}: export the model again"
                )

    def encode_text(self, phrases: Sequence[str], templates: Sequence[str]) -> Floats:
        """Class embedding of each phrase, averaged over the templates, float32 [Q, C]."""
        if self._text is None:
            words = np.stack([self._words.embedding(phrase) for phrase in phrases])
            words = words * self._names.wordless(phrases)
            return np.concatenate([words, self._names.named(phrases)], axis=1)
        prompts = [template.format(phrase) for phrase in phrases for template in templates]
        if self.manifest.aligned is not None:
            return self._checked(self._text.of_means(prompts, len(templates)), len(phrases))
        each = self._checked(self._text(prompts), len(prompts))
        each = each.reshape(len(phrases), len(templates), -1)
        mean = each.mean(axis=1)
        return mean / np.maximum(np.linalg.norm(mean, axis=-1, keepdims=True), np.float32(1e-12))

    def _checked(self, embeddings: Floats, count: int) -> Floats:
        """What a text graph has made of so many texts."""
        if embeddings.shape != (count, self.manifest.embedding_width):
            raise ModelError(
                f"{self.folder}: its text graph gives {embeddings.shape} for {count} texts: "
                "export the model again"
            )
        return embeddings

    def score(
        self, grouped: GroupedImage, class_embeddings: Floats, threshold: float | None
    ) -> Floats:
        """Scores of background and phrases per group, float32 [B, G, 1 + Q].

        Raises:
            ModelError: the embeddings are not as wide as the model's.
        """
        wanted = self.manifest.embedding_width
        if class_embeddings.shape[-1] != wanted:
            raise ModelError(
                f"{self.folder}: class embeddings are {class_embeddings.shape[-1]} wide, but this "
                f"model compares {wanted}: embed the classes with its own text graph"
            )
        with one_blas_thread():
            return self._scores(grouped, class_embeddings, threshold)

    def _scores(self, grouped: GroupedImage, classes: Floats, threshold: float | None) -> Floats:
        """By the rule of the model's family."""
        groups, scale = grouped.embedding, self.manifest.scale
        if self.manifest.kind == "starter":
            words, captions, weights = self._words.width, self._words.captions, Weights.of(grouped)
            own = groups.shape[-1] - len(self._names.classes)
            told = (groups[..., :own], classes[..., :words], threshold, captions, weights)
            base = starter_scores(*told)
            if self.manifest.taught is None:
                return base
            taught, odds = self.manifest.taught, to_grid(groups[..., own:], grouped)
            how = (taught.text, self.threshold, taught.stuff)
            return scores_beside_stuff(base, odds, classes, *how, doubt=taught.doubt)
        if self.manifest.reading is not None:
            return dense_clip_scores(groups, classes, scale, threshold)
        if self.manifest.aligned is not None:
            rule = self.manifest.aligned
            seen = (grouped.heads, grouped.attention, rule.clean)
            clean = None if grouped.heads is None else Cleaning(*seen)
            return aligned_scores(groups, classes, scale, rule.bias, threshold, clean)
        return ovsegmentor_scores(groups, grouped.image_embedding, classes, scale, threshold)

    @property
    def scales(self) -> tuple[float, ...]:
        """Sizes at which images are read, as multiples of the short side."""
        return (1.0,) if self.manifest.aligned is None else self.manifest.aligned.scales

    @property
    def align_corners(self) -> bool:
        """Whether the outermost positions lie on a window's outermost pixels."""
        return self.manifest.aligned is not None and self.manifest.aligned.align_corners

    def known_words(self) -> list[str] | None:
        """The words of a closed vocabulary; None for an open one."""
        return self._names.beside(self._words.words) if self._text is None else None

    def unknown(self, phrases: Sequence[str]) -> list[UnknownPhrase]:
        """The phrases that a closed vocabulary lacks."""
        return self._words.unknown(self._names.others(phrases)) if self._text is None else []

    def partly_known(self, phrases: Sequence[str]) -> list[PartlyKnown]:
        """The phrases of which a closed vocabulary has some words only."""
        return self._words.partly_known(self._names.others(phrases)) if self._text is None else []

    @cached_property
    def _names(self) -> TaughtNames:
        taught = self.manifest.taught
        return TaughtNames(()) if taught is None else TaughtNames(taught.classes, taught.stuff)

    @cached_property
    def _words(self) -> WordTable:
        words = WordTable(self.folder / WORDS_FOLDER)
        if words.width + len(self._names.classes) != self.manifest.embedding_width:
            raise ModelError(f"{self.folder}: its words are of another graph: export it again")
        return words


class ExportedDenseModel(ExportedModel):
    """Implements `DenseModel`."""

    @property
    def reading(self) -> DenseReading:
        """How positions are compared with phrases."""
        reading = self.manifest.reading
        if reading is None:
            raise ModelError(f"{self.folder}: no dense model")
        return reading.dense_reading


class BuiltInModel(ExportedModel):
    """The starter in ONNX Runtime: a graph beside its weights, which both runtimes share.

    Raises:
        UsageError: the device is not one that ONNX Runtime has here.
    """

    def __init__(self, device: str = "auto") -> None:
        folder = Path(str(files("ovseg.models.starter")))
        super().__init__(folder, read_manifest(folder), device)

    @property
    def card(self) -> ModelCard:
        return replace(super().card, name=self.manifest.kind)

    @cached_property
    def _words(self) -> WordTable:
        return WordTable()


class TextEmbedder:
    """Prompts to embeddings, by a tokenizer's file and a text graph; opened when first asked."""

    def __init__(self, folder: Path, text: TextRule, device: str) -> None:
        self._graph = open_graph(folder / text.graph, device)
        self._file = folder / text.tokenizer
        self._text = text

    def __call__(self, prompts: Sequence[str]) -> Floats:
        """Embed prompts, each on its own, float32 [T, C]."""
        self._try(prompts)
        batches = [
            self._embed(prompts[start : start + PROMPTS_PER_BATCH])
            for start in range(0, len(prompts), PROMPTS_PER_BATCH)
        ]
        return np.concatenate(batches)

    def of_means(self, prompts: Sequence[str], count: int) -> Floats:
        """Embeddings of phrases with `count` prompts each, whose mean the graph takes, [Q, C]."""
        self._try(prompts)
        together = max(PROMPTS_PER_BATCH // count, 1) * count
        batches = [
            self._embed(prompts[start : start + together], count)
            for start in range(0, len(prompts), together)
        ]
        return np.concatenate(batches)

    def _embed(self, prompts: Sequence[str], count: int = 0) -> Floats:
        """Prompts, or with a `count` the means of so many that follow each other."""
        encoded = self._tokenizer.encode_batch(list(prompts))
        inputs: dict[str, npt.NDArray] = {
            "ids": np.array([one.ids for one in encoded], dtype=np.int64),  # [T, L]
            "mask": np.array([one.attention_mask for one in encoded], dtype=np.int64),
        }
        if count:
            phrases = np.eye(len(prompts) // count, dtype=np.float32)
            inputs["shares"] = np.repeat(phrases, count, axis=1) / np.float32(count)  # [Q, T]
        return self._graph.run(("text_embedding",), inputs)[0]

    def _try(self, prompts: Sequence[str]) -> None:
        _tokenizers()  # a missing package is told here, not by a child
        try_tokenizer(self._content, prompts, self._text.max_tokens, str(self._file))

    @cached_property
    def _content(self) -> str:
        return read_text(self._file, _MAX_TOKENIZER_BYTES, ModelError)

    @cached_property
    def _tokenizer(self) -> Any:
        tokenizer = _tokenizers().Tokenizer.from_str(self._content)  # tried before
        tokenizer.enable_truncation(self._text.max_tokens)
        tokenizer.enable_padding(pad_id=self._text.pad_id)
        return tokenizer


def _tokenizers() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise MissingDependencyError("tokenizers", "onnx", "the tokenizer") from error
    return tokenizers
