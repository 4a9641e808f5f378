"""Protocols: everything between an image file and its label map, named and pinned.

`ovseg segment` is the protocol `own` with what its user changes; `ovseg eval` takes that or one
under which scores were published. A score says nothing without its protocol, so every one is
printed with the hash of all values that can change it.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Literal

from ovseg.data.class_list import ClassList
from ovseg.errors import UsageError
from ovseg.inference.background import (
    BackgroundRule,
    asked_for,
    check_rule,
    fields_of,
    own_fields,
    without_asked,
)
from ovseg.inference.refine.affinity import FeatureAffinity
from ovseg.inference.refine.chain import parse_chain
from ovseg.inference.refine.guided import GuidedFilter
from ovseg.inference.refine.propagation import LabelPropagation
from ovseg.models.interface import SegmentationModel, is_dense
from ovseg.models.templates import is_template

ONE_PASS = 1 << 30
"""Side of a window that no image fills: one pass over the whole image."""

# Fields that are younger than published hashes: hashed where they have another value.
_ADDED = {
    "pad_to": 1,
    "distractors": (),
    "resample": "",
    "average": "cosines",
    "align_corners": False,
    "refine_windows": False,
    "clean": True,
    "background_rule": "",
    "affinity": asdict(FeatureAffinity()),
    "lposs": asdict(LabelPropagation()),
    "guided": asdict(GuidedFilter()),
}
_UNHASHED = ("source", "background")  # changes no score; is the set's


def check_share(name: str, value: float | None) -> None:
    """Raise UsageError unless a value is from 0 to 1, or None; NaN is neither."""
    if value is not None and not 0 <= value <= 1:
        raise UsageError(f"{name} {value:g}: must be from 0 to 1; without it, the default applies")


@dataclass(frozen=True)
class Protocol:
    """One way from pixels to labels. Lengths are pixels of the resized image.

    Attributes:
        name: as on the command line.
        rule: `model`, the model's own scores per group and its own background rule in each window;
            `constant`, the sigmoid of scaled cosines against a constant background; `probability`,
            a softmax over all phrases at each pixel, after windows are averaged.
        short_side: shorter image side; 0 takes the model's own.
        long_side: most the longer side may have; it wins over `short_side`.
        window: side of the square windows; 0 takes the model's own, where it has some. One that
            exceeds the image looks at all of it at once, as `ONE_PASS` always does.
        stride: from one window to the next.
        pad_to: windows are padded with zeros to a multiple of this, half of it on each side.
        resample: `bilinear` or `bicubic`, as `Preprocessing` has them; empty is `bilinear`, but
            under `own` the model's.
        average: over windows of `cosines`, or of `probabilities`: a softmax in each window
            (`probability`). One pass whose maps go straight to the original size has no windows.
        direct: where one pass sees the whole image, bring its maps from the grid straight to the
            original size, not by way of the resized image.
        align_corners: resize maps to a window so that the outermost positions lie on its outermost
            pixels, not half a position inside.
        templates: prompt templates with one `{}` each, or `imagenet80`; empty takes the model's.
        scale: what cosines are multiplied by (`constant`, `probability`).
        bias: added to scaled cosines (`constant`).
        background: whether pixels may belong to none of the classes.
        background_rule: `probability`, `constant` or `words` instead of `rule`, as
            `ovseg.inference.background` has them; empty leaves `rule`.
        threshold: of the background, 0..1; None takes the rule's or the model's own.
        area_threshold: share of the foreground a class must exceed to stay, 0..1 (`probability`).
        background_words: phrases that stand for the background (`probability`, `constant`); beside
            a model's own rule they mean `background_rule` `words`.
        words: one entry per class, synonyms after `;`; empty takes the set's.
        synonyms: further phrases of single classes, by the first phrase.
        distractors: further classes to ask for at once, as `words`; a pixel that one of them wins
            counts as background.
        refine: `none`, or steps separated by commas, each `affinity`, `lposs`, `lposs+`, `pamr` or
            `guided`; see `ovseg.inference.refine.chain`.
        refine_windows: clean pixels in each window, before windows are averaged, as Talk2DINO does.
        pamr_iterations, pamr_dilations: of PAMR.
        affinity, lposs, guided: settings of these steps; `lposs` are those of `lposs+`, too.
        clean: whether what a model's attention heads look at may count against the background, if
            the model has such a rule (`model`).
        flip: average with the mirrored image.
        scales: average over the image at these multiples of `short_side`.
        source: where it was published; changes no score.
    """

    name: str
    rule: Literal["model", "constant", "probability"]
    short_side: int = 0
    long_side: int = 2048
    window: int = 0
    stride: int = 0
    pad_to: int = 1
    resample: Literal["", "bilinear", "bicubic"] = ""
    average: Literal["cosines", "probabilities"] = "cosines"
    direct: bool = False
    align_corners: bool = False
    templates: tuple[str, ...] | Literal["imagenet80"] = ()
    scale: float = 1.0
    bias: float = 0.0
    background: bool = True
    background_rule: BackgroundRule = ""
    threshold: float | None = None
    area_threshold: float | None = None
    background_words: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    synonyms: dict[str, str] = field(default_factory=dict)
    distractors: tuple[str, ...] = ()
    refine: str = "none"
    refine_windows: bool = False
    clean: bool = True
    pamr_iterations: int = 10
    pamr_dilations: tuple[int, ...] = (8, 16)
    affinity: FeatureAffinity = field(default_factory=FeatureAffinity)
    lposs: LabelPropagation = field(default_factory=LabelPropagation)
    guided: GuidedFilter = field(default_factory=GuidedFilter)
    flip: bool = False
    scales: tuple[float, ...] = (1.0,)
    source: str = ""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if self.window and not 0 < self.stride <= self.window:
            raise UsageError(
                f"window {self.window}/{self.stride}: the stride must be between 1 and the "
                "window's side"
            )
        if self.short_side < 0 or self.window < 0 or not self.scales:
            raise UsageError("sizes are not negative, and scales has at least one entry")
        check_share("threshold", self.threshold)
        check_share("area_threshold", self.area_threshold)
        check_rule(self.background_rule)
        parse_chain(self.refine)
        if self.refine_windows and (self.rule == "probability" or "lposs+" in self.refine):
            raise UsageError(
                "refine_windows goes with the rules model and constant, and not with lposs+"
            )

    @property
    def hash(self) -> str:
        """First 12 hexadecimal digits of the SHA-256 over every value that can change a score."""
        values = {
            key: value
            for key, value in asdict(self).items()
            if key not in _UNHASHED and not (key in _ADDED and value == _ADDED[key])
        }
        canonical = json.dumps(values, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    @property
    def class_list(self) -> ClassList:
        """The classes with all their phrases."""
        return ClassList.of(
            f"{entry}; {self.synonyms.get(entry.split(';')[0].strip(), '')}" for entry in self.words
        )

    @property
    def one_pass(self) -> bool:
        """Whether the whole image is seen at once, whatever its size."""
        return self.window in (0, ONE_PASS)

    def for_model(
        self,
        model: SegmentationModel,
        *,
        background: bool = True,
        classes: ClassList | None = None,
    ) -> "Protocol":
        """The protocol with the model's own values where it leaves them open.

        Args:
            model: whose size, windows, templates and threshold are taken; under `own` also the way
                of reading that a dense model may have.
            background: whether there is a background class.
            classes: what will be asked for; by default the protocol's own words.
        """
        size = model.preprocessing
        filled = replace(self, background=self.background and background)
        if not self.short_side:
            filled = replace(filled, short_side=size.short_side, long_side=size.long_side)
        if not self.window and size.window:
            filled = replace(filled, window=size.window, stride=size.stride)
        if not self.templates:
            filled = replace(filled, templates=tuple(model.templates))
        if self.name == OWN.name and is_dense(model):
            filled = replace(filled, pad_to=model.reading.pad_to)
        if self.name == OWN.name:
            filled = replace(filled, align_corners=getattr(model, "align_corners", False))
            if size.resample != "bilinear" and not self.resample:
                filled = replace(filled, resample=size.resample)
            if self.scales == OWN.scales:
                filled = replace(filled, scales=tuple(getattr(model, "scales", self.scales)))
        return filled._with_background(model, classes)

    def _with_background(self, model: SegmentationModel, classes: ClassList | None) -> "Protocol":
        """With the background's rule, threshold and words where they are left open."""
        rule = self.background_rule
        if self.rule == "model" and self.background_words and self.background:
            rule = rule or "words"
        as_read = self.name == OWN.name and is_dense(model)
        fields = fields_of(rule, model) if rule else own_fields(model) if as_read else {}
        if rule and self.rule == fields["rule"] and self.name != OWN.name:
            fields |= {"scale": self.scale, "bias": self.bias}  # as published
        if fields:
            words = self.background_words or fields["background_words"]
            asked = classes or self.class_list
            fields["background_words"] = without_asked(words, asked) if self.background else ()
        fields.setdefault("threshold", model.threshold)
        if self.threshold is not None or not self.background:
            fields["threshold"] = self.threshold
        return replace(self, **fields, background_rule=rule)


OWN = Protocol("own", "model", direct=True, source="the model's own settings")
"""The model as it comes: its own size, windows, templates, threshold and way of reading."""


def own(**changes: Any) -> Protocol:
    """`own` with other values, as `changed` takes them."""
    return changed(OWN, **changes)


def changed(protocol: Protocol, **changes: Any) -> Protocol:
    """A protocol with other values.

    Args:
        protocol: what is changed.
        changes: fields of `Protocol`. `window` is read by `parse_window` where it is text, and
            `background_words` as a class list; values of None and an empty `refine` leave what
            there is. With another `background_rule`, threshold and words of the former go.

    Raises:
        UsageError: there is no such field, or its value makes no sense.
    """
    wanted = {key: value for key, value in changes.items() if value is not None}
    if unknown := set(wanted) - set(Protocol.__dataclass_fields__):
        raise UsageError(f"no such option: {_listed(sorted(unknown))}")
    if isinstance(wanted.get("window"), str):
        wanted |= parse_window(wanted.pop("window"))
    if "window" in wanted and "stride" not in wanted:
        wanted["stride"] = max(wanted["window"] // 2, 1)
    if wanted.get("refine") == "":
        del wanted["refine"]
    if "templates" in wanted:
        wanted["templates"] = check_templates(wanted["templates"])
    if isinstance(wanted.get("background_words"), str):
        wanted["background_words"] = ClassList.parse(wanted["background_words"]).phrases
    return replace(protocol, **asked_for(wanted))


def parse_window(text: str) -> dict[str, int]:
    """Read `auto`, `none`, `SIDE` or `SIDE/STRIDE` as fields of a protocol.

    The stride is half the side by default; `none` is one pass, `auto` leaves the model's own.

    Raises:
        UsageError: it is none of these.
    """
    if text == "auto":
        return {}
    if text == "none":
        return {"window": ONE_PASS, "stride": ONE_PASS}
    side, _, stride = text.partition("/")
    if not side.isdecimal() or not (stride or "1").isdecimal() or not int(side):
        raise UsageError(
            f"window {text!r}: give its side and stride in pixels, as 448/224, or none, or auto"
        )
    step = int(stride) if stride else max(int(side) // 2, 1)
    if not 0 < step <= int(side):
        raise UsageError(
            f"window {text}: the stride must be between 1 and the window's side, {side}"
        )
    return {"window": int(side), "stride": step}


def check_templates(templates: Sequence[str]) -> tuple[str, ...]:
    """Prompt templates as given by a user.

    Raises:
        UsageError: one has no `{}`, or more than that to fill in.
    """
    for template in templates:
        if not is_template(template):
            raise UsageError(
                f"prompt {template!r} needs exactly one {{}} for the class: 'a photo of a {{}}.'"
            )
    return tuple(templates)


def swept_thresholds(threshold: float | None) -> tuple[float, ...]:
    """Nineteen thresholds to score beside the one in use: steps of 0.05, or about a small one.

    A model's scores need not be shares: where the threshold in use lies below those steps, it is in
    the middle, and each is larger than the one before by the square root of 2.
    """
    if not threshold or threshold >= 0.05:
        return tuple(round(0.05 * step, 2) for step in range(1, 20))
    return tuple(float(f"{threshold * 2 ** (step / 2):.3g}") for step in range(-9, 10))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
