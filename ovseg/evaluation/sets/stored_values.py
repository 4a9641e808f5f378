"""What the values in label files mean where they are not simply the lines of a class file."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ovseg.errors import UsageError

MOST = 1 << 16  # label files have at most 16 bits
NOTHING = "none"


@dataclass(frozen=True)
class StoredValues:
    """How to read label files whose values are not 0..K-1 and 255.

    Attributes:
        ignored: the value of pixels that are not counted, `none` where all are; None for the usual
            255, and 65535 in 16 bits.
        meaning: the class of a value, by its line in the class file from 0; None: not counted.
    """

    ignored: int | str | None = None
    meaning: Mapping[int, int | None] = field(default_factory=dict)

    @property
    def given(self) -> bool:
        """Whether anything is said at all."""
        return self.ignored is not None or bool(self.meaning)

    @property
    def words(self) -> str:
        """As a record of a run tells it; empty where nothing is said."""
        ignored = "" if self.ignored is None else f", ignore_label {self.ignored}"
        pairs = (f"{v}={'ignore' if c is None else c}" for v, c in sorted(self.meaning.items()))
        return ignored + (f", label_map {' '.join(pairs)}" if self.meaning else "")

    @classmethod
    def of(
        cls, ignore_label: int | str | None, label_map: Mapping[int, int | None] | str | None
    ) -> "StoredValues":
        """From values or from text: `255` or `none`; `255=1,7=ignore`.

        Raises:
            UsageError: they are something else.
        """
        ignored = ignore_label
        if ignored is not None and ignored != NOTHING:
            ignored = _value(ignored, f"ignore_label is {ignored!r}: give a value, or {NOTHING}")
        if isinstance(label_map, str):
            label_map = dict(_pair(text) for text in label_map.split(",") if text.strip())
        meaning: dict[int, int | None] = {}
        for value, label in (label_map or {}).items():
            fault = f"label_map has {value!r}: {label!r}: give value and class from 0 to {MOST - 1}"
            meaning[_value(value, fault)] = None if label is None else _value(label, fault)
        return cls(ignored, meaning)


def _pair(text: str) -> tuple[int, int | None]:
    fault = f"label_map has {text.strip()!r}: give pairs such as 255=1,7=ignore"
    value, equals, label = (part.strip() for part in text.partition("="))
    if not equals:
        raise UsageError(fault)
    return _value(value, fault), None if label == "ignore" else _value(label, fault)


def _value(value: int | str, fault: str) -> int:
    """A value that a label file can hold; UsageError with this message if it is none."""
    if isinstance(value, str) and value.isdecimal() and len(value) < 6:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < MOST:
        raise UsageError(fault)
    return value


AS_USUAL = StoredValues()
