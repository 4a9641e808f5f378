"""Masking a caption by the spans that matching stored."""

import pytest

from ovseg.data.captions import mask_spans


@pytest.mark.parametrize(
    ("caption", "masked"),
    [
        ("a bus by a sofa", "a [MASK] by a [MASK]"),
        ("glass and skis", "[MASK] and [MASK]"),
        ("the café’s T\u2011shirt 👕 box", "the café’s [MASK] 👕 [MASK]"),
        ("nothing", "nothing"),
    ],
)
def test_entities_found_are_entities_masked(caption: str, masked: str) -> None:
    pl = pytest.importorskip("polars")
    from ovseg.data.corpus.entities import load_entities
    from ovseg.data.corpus.matching import Matcher

    found = Matcher(load_entities("paper100")).match(pl.Series([caption]))
    assert mask_spans(caption, found.start.tolist(), found.end.tolist(), "[MASK]") == masked


def test_bad_spans_are_refused() -> None:
    for starts, ends in (([0, 1], [3, 4]), ([2], [9]), ([2], [1])):
        with pytest.raises(ValueError, match="span"):
            mask_spans("caption", starts, ends, "x")
