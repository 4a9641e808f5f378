"""Evaluation protocols: everything between an image file and its label map, named and pinned.

A score says nothing without its protocol, so every one is printed with the hash of all values that
can change it.
"""

import hashlib
import json
import sys
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from ovseg.data.class_list import BACKGROUND, ClassList
from ovseg.errors import RecipeError, UsageError
from ovseg.evaluation.sets.base import EvaluationSet
from ovseg.models.interface import DenseReading, SegmentationModel

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NAMES = ("own", "groupvit", "tcl", "sclip")
# Models of a kind are published under a protocol: that one is taken unless another is asked for.
_BY_KIND = {"ovsegmentor": "groupvit", "dense-clip": "sclip"}


@dataclass(frozen=True)
class Protocol:
    """One protocol on one set. Lengths are pixels of the resized image.

    Attributes:
        name: as on the command line.
        rule: `model`, the model's own scores per group and its own background rule in each window;
            `constant`, the sigmoid of scaled cosines against a constant background; `probability`,
            a softmax over all phrases at each pixel, after windows are averaged.
        short_side: shorter image side; 0 takes the model's own.
        long_side: most the longer side may have; it wins over `short_side`.
        window: side of the square windows; 0 takes the model's own, where it has some. One that
            exceeds the image looks at all of it at once.
        stride: from one window to the next.
        direct: where one pass sees the whole image, bring its maps from the grid straight to the
            original size, as `ovseg segment` does, not by way of the resized image.
        templates: prompt templates with one `{}` each, or `imagenet80`; empty takes the model's.
        scale: what cosines are multiplied by (`constant`, `probability`).
        bias: added to scaled cosines (`constant`).
        threshold: of the background; None takes the model's own.
        area_threshold: share of the foreground a class must exceed to stay (`probability`).
        background_words: phrases that stand for the background (`probability`).
        words: one entry per foreground class, synonyms after `;`; empty takes the set's.
        synonyms: further phrases of single classes, by the first phrase.
        refine: `pamr` moves scores along the edges of the image, `none` does not.
        pamr_iterations, pamr_dilations: of PAMR.
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
    direct: bool = False
    templates: tuple[str, ...] | Literal["imagenet80"] = ()
    scale: float = 1.0
    bias: float = 0.0
    threshold: float | None = None
    area_threshold: float | None = None
    background_words: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    synonyms: dict[str, str] = field(default_factory=dict)
    refine: Literal["none", "pamr"] = "none"
    pamr_iterations: int = 10
    pamr_dilations: tuple[int, ...] = (8, 16)
    flip: bool = False
    scales: tuple[float, ...] = (1.0,)
    source: str = ""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    @property
    def hash(self) -> str:
        """First 12 hexadecimal digits of the SHA-256 over every value that can change a score."""
        values = {key: value for key, value in asdict(self).items() if key != "source"}
        canonical = json.dumps(values, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    @property
    def class_list(self) -> ClassList:
        """The foreground classes with all their phrases."""
        return ClassList.of(
            f"{entry}; {self.synonyms.get(entry.split(';')[0].strip(), '')}" for entry in self.words
        )

    def for_model(self, model: SegmentationModel, *, background: bool) -> "Protocol":
        """The protocol with the model's own values where it leaves them open.

        Args:
            model: whose size, windows, templates and threshold are taken; under `own` also the way
                of reading that a dense model may have.
            background: whether the set has a background class.
        """
        rule = model.preprocessing
        filled = self
        if not self.short_side:
            filled = replace(filled, short_side=rule.short_side, long_side=rule.long_side)
        if not self.window and rule.window:
            filled = replace(filled, window=rule.window, stride=rule.stride)
        if not self.templates:
            filled = replace(filled, templates=tuple(model.templates))
        if background and self.threshold is None:
            filled = replace(filled, threshold=model.threshold)
        reading: DenseReading | None = getattr(model, "reading", None)
        if self.name != "own" or reading is None:
            return filled
        return replace(
            filled,
            rule="probability",
            scale=reading.scale,
            background_words=reading.background if background else (),
        )


def swept_thresholds(threshold: float | None) -> tuple[float, ...]:
    """Nineteen thresholds to score beside the one in use: steps of 0.05, or about a small one.

    A model's scores need not be shares: where the threshold in use lies below those steps, it is in
    the middle, and each is larger than the one before by the square root of 2.
    """
    if not threshold or threshold >= 0.05:
        return tuple(round(0.05 * step, 2) for step in range(1, 20))
    return tuple(float(f"{threshold * 2 ** (step / 2):.3g}") for step in range(-9, 10))


def protocol_for_model(kind: str) -> str:
    """The protocol under which models of a kind are published; `own` for others."""
    return _BY_KIND.get(kind, "own")


def load_protocol(
    name_or_path: str, evaluated: EvaluationSet, changes: dict[str, Any] | None = None
) -> Protocol:
    """A protocol as it applies to one set.

    Args:
        name_or_path: a shipped name, or a TOML file of the same form.
        evaluated: the set; its words fill in where the protocol has none for it.
        changes: single values to use instead, such as `{"refine": "pamr"}`.

    Raises:
        UsageError: there is no such protocol or file.
        RecipeError: the file has a key or value that makes no sense; all of them are named.
    """
    where, document = _read(name_or_path)
    sets = document.pop("sets", {})
    values = {**document, **sets.get(evaluated.name, {}), **(changes or {})}
    try:
        protocol = TypeAdapter(Protocol).validate_python(values)
    except ValidationError as error:
        faults = "; ".join(f"{_place(fault['loc'])}: {fault['msg']}" for fault in error.errors())
        raise RecipeError(f"{where}: {faults}") from error
    _check(protocol, where)
    words = protocol.words or tuple("; ".join(phrases) for phrases in evaluated.words.synonyms)
    protocol = replace(protocol, words=words, background_words=_background(protocol, evaluated))
    if len(protocol.class_list.names) != len(evaluated.words.names):
        raise RecipeError(
            f"{where}: names {len(words)} classes for {evaluated.name}, which has "
            f"{len(evaluated.words.names)}"
        )
    return protocol


def _read(name_or_path: str) -> tuple[str, dict[str, Any]]:
    if name_or_path in NAMES:
        text = (files("ovseg.evaluation") / "protocols" / f"{name_or_path}.toml").read_text("utf-8")
        return name_or_path, tomllib.loads(text)
    path = Path(name_or_path)
    if not path.is_file():
        raise UsageError(
            f"there is no protocol or file called {name_or_path}: choose {', '.join(NAMES)}, or "
            "give a TOML file"
        )
    try:
        return str(path), tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{path}: not a readable TOML file ({error})") from error


def _place(location: tuple[int | str, ...]) -> str:
    known = {entry.name for entry in fields(Protocol)}
    key = str(location[0]) if location else "file"
    return key if key in known else f"{key} (no such key)"


def _check(protocol: Protocol, where: str) -> None:
    if protocol.window and not 0 < protocol.stride <= protocol.window:
        raise RecipeError(
            f"{where}: stride {protocol.stride} must lie between 1 and the window's side, "
            f"{protocol.window}"
        )
    if protocol.short_side < 0 or protocol.window < 0 or not protocol.scales:
        raise RecipeError(f"{where}: sizes are not negative, and scales has at least one entry")
    given = () if isinstance(protocol.templates, str) else protocol.templates
    if bad := [template for template in given if "{}" not in template]:
        raise RecipeError(f"{where}: template '{bad[0]}' has no {{}} for the phrase")


def _background(protocol: Protocol, evaluated: EvaluationSet) -> tuple[str, ...]:
    """Words of the background where the rule needs some and the set has one."""
    if protocol.rule != "probability" or not evaluated.background:
        return ()
    return protocol.background_words or (BACKGROUND,)
