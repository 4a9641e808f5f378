"""The dense models that have a name."""

import open_clip
import pytest
import torch

from ovseg.models.catalogue import CATALOGUE, Entry
from ovseg.models.clip.names import SHORT_NAMES, parse_clip_name
from ovseg.models.clip.weights import build, pretrained

ENTRIES = [entry for entry in CATALOGUE if entry.kind == "dense-clip"]


def test_every_short_name_is_listed() -> None:
    assert {entry.name for entry in ENTRIES} == set(SHORT_NAMES)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_an_entry_says_what_would_be_downloaded(entry: Entry) -> None:
    name = parse_clip_name(entry.name)
    base, described = pretrained(name.architecture, name.tag)
    assert described["hf_hub"] == f"{entry.hub}/"
    assert entry.source == f"https://huggingface.co/{entry.hub}"
    with torch.device("meta"):
        model = build(open_clip.get_model_config(base))
    assert entry.size == 4 * sum(weight.numel() for weight in model.parameters())
