"""Refinements by name: what is understood, and what is refused."""

import pytest

from ovseg.errors import UsageError
from ovseg.inference.refine.chain import Step, parse_chain


def test_steps_follow_each_other() -> None:
    assert parse_chain("none") == ()
    assert parse_chain("pamr") == (Step("pamr"),)
    chain = parse_chain("affinity=vit_small_patch16_224.dino@a/b.safetensors, lposs+,pamr,guided")
    assert chain[0] == Step("affinity", "vit_small_patch16_224.dino@a/b.safetensors")
    assert [step.name for step in chain] == ["affinity", "lposs+", "pamr", "guided"]
    assert [step.on_patches for step in chain] == [True, True, False, False]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("crf", "unknown refinement 'crf': choose none, affinity"),
        ("", "unknown refinement ''"),
        ("none,pamr", "unknown refinement 'none'"),
        ("pamr,lposs", "write lposs,pamr|lposs,pamr"),
        ("lposs+,affinity", "affinity works on patches, so it comes before lposs+"),
        ("pamr=vit_small_patch16_224.dino", "go by the image alone"),
        ("lposs=", "take a backbone"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said.replace("+", r"\+")):
        parse_chain(text)
