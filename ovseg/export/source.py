"""What of a model is exported: its graphs, its tokenizer, and what a runtime must know."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from torch import nn

from ovseg.errors import ModelError
from ovseg.export.clip_text import ClipTextGraph, clip_tokenizer
from ovseg.export.graphs import DenseClipGraph, GroupingGraph, StarterGraph, TextGraph
from ovseg.models.clip.model import DenseClip
from ovseg.models.export_description import Kind
from ovseg.models.interface import SegmentationModel
from ovseg.models.ovsegmentor.predictor import Predictor
from ovseg.models.starter.model import StarterModel
from ovseg.models.starter.reader import CELL
from ovseg.models.starter.words import TABLES
from ovseg.models.tokenizer import ClipTokenizer, HubTokenizer, collect_tokenizer_files

TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class TextSource:
    """A text graph and the files of its tokenizer by name; `tokenizer.json` is one of them."""

    graph: nn.Module
    files: Mapping[str, str] = field(repr=False)
    max_tokens: int
    pad_id: int


@dataclass(frozen=True)
class Source:
    """A model taken apart for export.

    Attributes:
        model: the model itself, on the CPU in float32; what the export is measured against.
        kind: its family.
        image: the image graph.
        text: the text graph; None for a closed vocabulary.
        tables: word tables of a closed vocabulary, by file name.
        embedding_width: C of class embeddings.
        cell: pixels from one position to the next.
        side_step: what the exporter must be told that sides are multiples of; 1 for nothing.
        scale: what cosines are multiplied by.
    """

    model: SegmentationModel
    kind: Kind
    image: nn.Module
    text: TextSource | None
    embedding_width: int
    cell: int
    side_step: int = 1
    scale: float = 1.0
    tables: Mapping[str, bytes] = field(default_factory=dict, repr=False)


def source_of(model: SegmentationModel) -> Source:
    """Take a model apart.

    Raises:
        ModelError: it is itself an export, of half precision, or its tokenizer has no fast form.
    """
    if isinstance(model, StarterModel):
        return _starter(model)
    if isinstance(model, Predictor):
        return _ovsegmentor(model)
    if isinstance(model, DenseClip):
        return _dense_clip(model)
    raise ModelError(f"{model.card.name}: a {model.card.kind} model cannot be exported again")


def _starter(model: StarterModel) -> Source:
    folder = files("ovseg.models.starter")
    return Source(
        model=model,
        kind="starter",
        image=StarterGraph(model.reader).eval(),
        text=None,
        embedding_width=len(model.words.classes),
        cell=CELL,
        side_step=model.preprocessing.multiple_of,
        tables={name: folder.joinpath(name).read_bytes() for name in TABLES},
    )


def _ovsegmentor(model: Predictor) -> Source:
    inner = model.model.float()
    return Source(
        model=model,
        kind="ovsegmentor",
        image=GroupingGraph(inner).eval(),
        text=_text_of(model.tokenizer, TextGraph(inner).eval()),
        embedding_width=inner.text_projector.out.out_features,
        cell=inner.image_encoder.patch,
        scale=float(inner.scale.detach()),
    )


def _dense_clip(model: DenseClip) -> Source:
    network = model.network.float()
    text_model: Any = model.text_model
    side = model.preprocessing.multiple_of * 4
    guided = network.guide is not None
    return Source(
        model=model,
        kind="dense-clip",
        image=DenseClipGraph(network, model.reading.scale).eval(),
        text=TextSource(ClipTextGraph(text_model).eval(), *clip_tokenizer(model.tokenizer)),
        embedding_width=int(text_model.text_projection.shape[-1]),
        cell=side // network.grid(side, side)[0],
        side_step=model.preprocessing.multiple_of if guided else 1,
        scale=model.reading.scale,
    )


def _text_of(tokenizer: object, graph: nn.Module) -> TextSource:
    if isinstance(tokenizer, ClipTokenizer):
        files_, length, pad = clip_tokenizer(tokenizer.tokenizer)
        return TextSource(graph, files_, min(length, tokenizer.max_tokens), pad)
    if not isinstance(tokenizer, HubTokenizer):
        raise ModelError(f"a {type(tokenizer).__name__} has no file that runs without torch")
    found = collect_tokenizer_files(tokenizer.tokenizer, "", "").files
    if TOKENIZER not in found:
        raise ModelError(
            "the model's tokenizer has no tokenizer.json, which running without torch needs: "
            "convert the checkpoint with a fast tokenizer of transformers"
        )
    pad = tokenizer.tokenizer.pad_token_id
    return TextSource(graph, found, tokenizer.max_tokens, 0 if pad is None else int(pad))
