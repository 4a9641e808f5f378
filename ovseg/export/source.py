"""What of a model is exported: its graphs, its tokenizer, and what a runtime must know."""

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from importlib.resources import files
from typing import Any

from torch import nn

from ovseg.data.class_list import ClassList
from ovseg.errors import ModelError
from ovseg.export.any_size import with_fixed_padding
from ovseg.export.graphs import (
    AlignedGraph,
    CaptionTowerGraph,
    ClipTextGraph,
    DenseClipGraph,
    GroupingGraph,
    GroupVitGraph,
    MeanTextGraph,
    PatchTextGraph,
    PooledTextGraph,
    TextGraph,
)
from ovseg.export.starter_graphs import StarterGraph, TaughtStarterGraph
from ovseg.models.aligned.aligner import AlignedPredictor
from ovseg.models.aligned.vision import StarterVision
from ovseg.models.clip.model import DenseClip
from ovseg.models.interface import SegmentationModel, is_dense
from ovseg.models.manifest import TOKENIZER, AlignedRule, Kind, TaughtRule
from ovseg.models.ovsegmentor.predictor import Predictor
from ovseg.models.starter.model import StarterModel
from ovseg.models.starter.reader import CELL
from ovseg.models.starter.words import TABLES
from ovseg.models.taught.head import LearnedHead
from ovseg.models.taught.taught_model import TaughtModel
from ovseg.models.tokenizer import ClipTokenizer, HubTokenizer, collect_tokenizer_files
from ovseg.models.towers import groupvit, tips
from ovseg.models.towers.caption_tower import CaptionTower
from ovseg.models.towers.dinotxt import PatchText
from ovseg.models.towers.groupvit import GroupVit

# How CLIP's tokenizer (Radford et al., 2021) cuts a text into words.
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


@dataclass(frozen=True)
class TextSource:
    """A text graph and the files of its tokenizer by name; `tokenizer.json` is one of them."""

    graph: nn.Module
    files: Mapping[str, str] = field(repr=False)
    max_tokens: int
    pad_id: int


@dataclass(frozen=True)
class ExportSource:
    """A model taken apart for export.

    Attributes:
        model: the model itself, on the CPU in float32; what the export is measured against.
        kind: its family.
        image: the image graph.
        text: the text graph; None for a closed vocabulary.
        tables: word tables of a closed vocabulary, by file name.
        aligned: what an aligned model's manifest says beside.
        taught: the classes that a model was taught.
        embedding_width: C of class embeddings.
        cell: pixels from one position to the next.
        side_step: what the exporter must be told that sides are multiples of; 1 for nothing.
        stretches: whether the image graph stretches sides to whole positions by itself.
        scale: what cosines are multiplied by.
    """

    model: SegmentationModel
    kind: Kind
    image: nn.Module
    text: TextSource | None
    embedding_width: int
    cell: int
    side_step: int = 1
    stretches: bool = False
    scale: float = 1.0
    tables: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    aligned: AlignedRule | None = None
    taught: TaughtRule | None = None


def source_of(model: SegmentationModel) -> ExportSource:
    """Take a model apart.

    Raises:
        ModelError: it is itself an export, of half precision, or its tokenizer has no fast form.
    """
    if isinstance(model, StarterModel):
        return _starter(model)
    if isinstance(model, TaughtModel):
        return _taught(model)
    if isinstance(model, Predictor):
        return _ovsegmentor(model)
    if isinstance(model, DenseClip):
        return _dense_clip(model)
    if isinstance(model, AlignedPredictor):
        return _aligned(model)
    if isinstance(model, CaptionTower):
        return _caption_tower(model)
    if isinstance(model, GroupVit):
        return _groupvit(model)
    raise ModelError(f"{model.card.name}: a {model.card.kind} model cannot be exported again")


def _starter(model: StarterModel) -> ExportSource:
    folder = files("ovseg.models.starter")
    return ExportSource(
        model=model,
        kind="starter",
        image=StarterGraph(model.reader).eval(),
        text=None,
        embedding_width=model.words.width,
        cell=CELL,
        side_step=model.preprocessing.multiple_of,
        tables={name: folder.joinpath(name).read_bytes() for name in TABLES},
    )


def _taught(model: TaughtModel) -> ExportSource:
    """The starter's graph with the head inside."""
    base, taught = model.base, model.taught
    if not isinstance(base, StarterModel) or not isinstance(taught.head, LearnedHead):
        raise ModelError(
            f"{model.card.name}: was taught on a {base.card.kind} model; only the starter's taught "
            "models can be exported: segment with the file itself"
        )
    source = _starter(base)
    told = (taught.head, taught.text, base.threshold, taught.stuff, taught.doubt)
    graph = TaughtStarterGraph(base.reader, *told)
    return replace(
        source,
        model=model,
        image=graph.eval(),
        embedding_width=source.embedding_width + taught.head.classes,
        taught=TaughtRule(
            classes=taught.classes, text=taught.text, stuff=taught.stuff, doubt=taught.doubt
        ),
    )


def _ovsegmentor(model: Predictor) -> ExportSource:
    inner = model.model.float()
    return ExportSource(
        model=model,
        kind="ovsegmentor",
        image=GroupingGraph(inner).eval(),
        text=_text_of(model.tokenizer, TextGraph(inner).eval()),
        embedding_width=inner.text_projector.out.out_features,
        cell=inner.image_encoder.patch,
        scale=float(inner.scale.detach()),
    )


def _dense_clip(model: DenseClip) -> ExportSource:
    network = model.network.float()
    text_model: Any = model.text_model
    side = model.preprocessing.multiple_of * 4
    guided = network.guide is not None
    return ExportSource(
        model=model,
        kind="dense-clip",
        image=DenseClipGraph(network, model.reading.scale).eval(),
        text=TextSource(ClipTextGraph(text_model).eval(), *clip_tokenizer(model.tokenizer)),
        embedding_width=int(text_model.text_projection.shape[-1]),
        cell=side // network.grid(side, side)[0],
        side_step=model.preprocessing.multiple_of if guided else 1,
        scale=model.reading.scale,
    )


def _aligned(model: AlignedPredictor) -> ExportSource:
    vision = model.model.vision
    reader = deepcopy(model.reader)
    if isinstance(reader.vision, StarterVision):
        reader.vision.network = with_fixed_padding(reader.vision.network)
    rule = AlignedRule(
        bias=model.bias,
        clean=model.settings.clean if reader.cleans else 0.0,
        groups=reader.groups,
        align_corners=model.align_corners and not reader.groups,
        scales=model.scales,
    )
    settings = (rule.bias, rule.clean, rule.align_corners, is_dense(model))
    graph = AlignedGraph(reader, model.scale, *settings)
    return ExportSource(
        model=model,
        kind="aligned",
        image=graph.eval(),
        text=_text_of(model.tokenizer, MeanTextGraph(model.model).eval()),
        embedding_width=model.config.embedding_width,
        cell=vision.patch,
        side_step=vision.multiple_of,
        scale=model.scale,
        aligned=rule,
    )


def _caption_tower(model: CaptionTower) -> ExportSource:
    towers, scale = model.towers, model.reading.scale
    text: Any = towers.text
    kind: Kind
    if isinstance(text, PatchText):
        graph = PatchTextGraph(text.model).eval()
        texts = TextSource(graph, *clip_tokenizer(text.tokenizer))
        width, kind = text.model.head.linear_projection.out_features // 2, "dinotxt"
    else:
        tokenizer = HubTokenizer(text.tokenizer, tips.LONGEST_TEXT)
        texts = _text_of(tokenizer, PooledTextGraph(text.model).eval())
        width, kind = int(text.model.config.hidden_size), "tipsv2"
    return ExportSource(
        model=model,
        kind=kind,
        image=CaptionTowerGraph(towers.vision, towers.patch, scale).eval(),
        text=texts,
        embedding_width=width,
        cell=towers.patch,
        stretches=True,
        scale=scale,
    )


def _groupvit(model: GroupVit) -> ExportSource:
    inner = model.model
    tokenizer = HubTokenizer(model.tokenizer, groupvit.LONGEST_TEXT)
    graph = PooledTextGraph(inner.text_model, inner.text_projection).eval()
    return ExportSource(
        model=model,
        kind="groupvit",
        image=GroupVitGraph(model.vision, model.scale).eval(),
        text=_text_of(tokenizer, graph),
        embedding_width=int(inner.config.projection_dim),
        cell=model.vision.patch,
        side_step=model.vision.patch,
        scale=model.scale,
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


def clip_tokenizer(tokenizer: Any) -> tuple[Mapping[str, str], int, int]:
    """The file of open_clip's byte-pair tokenizer, its longest text, and what it pads with.

    Raises:
        ModelError: it is another tokenizer, or the file would not read texts as it does.
    """
    if not hasattr(tokenizer, "bpe_ranks"):
        raise ModelError(
            f"the tokenizer {type(tokenizer).__name__} cannot be exported: only CLIP's own can"
        )
    fast = _fast(tokenizer)
    length = int(tokenizer.context_length)
    _require_agreement(tokenizer, fast, length)
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": length}
    return {"tokenizer.json": fast.to_str(), "tokenizer_config.json": json.dumps(config)}, length, 0


def _fast(tokenizer: Any) -> Any:
    from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors
    from tokenizers.models import BPE

    merges = sorted(tokenizer.bpe_ranks, key=tokenizer.bpe_ranks.get)
    fast = Tokenizer(BPE(dict(tokenizer.encoder), merges, end_of_word_suffix="</w>"))
    fast.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    fast.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    start, end = int(tokenizer.sot_token_id), int(tokenizer.eot_token_id)
    ends = [(tokenizer.decoder[number], number) for number in (start, end)]
    around = f"{ends[0][0]} $A {ends[1][0]}"
    fast.post_processor = processors.TemplateProcessing(around, None, ends)
    return fast


def _require_agreement(tokenizer: Any, fast: Any, length: int) -> None:
    """Compare both tokenizers on every benchmark's words, and on hard ones."""
    texts = [*_vocabulary(), "Mother's  2nd café,\tàé (v1.5)!", "日本 ☂ 12345", "word " * 100]
    fast.enable_truncation(length)
    for text in texts:
        wanted = tokenizer(["a photo of a " + text])[0].tolist()
        found = fast.encode("a photo of a " + text).ids
        if found != wanted[: len(found)] or any(wanted[len(found) :]):
            raise ModelError(f"the tokenizer's file reads {text!r} in another way than open_clip")
    fast.no_truncation()


def _vocabulary() -> Sequence[str]:
    names = ("voc", "context", "coco", "ade20k")
    return [phrase for name in names for phrase in ClassList.vocabulary(name).phrases]
