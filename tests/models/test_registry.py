"""Models by name: what is known of them, and fetching them."""

from pathlib import Path

import pytest

from ovseg.errors import ModelError, UsageError
from ovseg.models.catalogue import CATALOGUE
from ovseg.models.registry import find_entry, is_cached, local_file, pull


def test_names_are_unique_and_tell_their_terms() -> None:
    assert len({entry.name for entry in CATALOGUE}) == len(CATALOGUE)
    for entry in CATALOGUE:
        assert entry.kind and entry.licence and entry.description
        assert entry.is_built_in or entry.source.startswith("https://")
        assert entry.is_built_in or entry.released or entry.hub or entry.tower or entry.projection


def test_the_published_scores_are_the_papers() -> None:
    scores = find_entry("ovsegmentor-vitb16-bert").scores
    assert scores == {"voc": 53.8, "context": 20.4, "coco-object": 25.1, "ade20k": 5.6}
    scores = find_entry("ovsegmentor-vits16-roberta").scores
    assert scores == {"voc": 44.5, "context": 18.3, "coco-object": 19.0, "ade20k": 4.3}


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"called startr; did you mean starter\?"):
        find_entry("startr")
    with pytest.raises(UsageError, match="ovseg models list"):
        find_entry("zzz")


def test_what_is_built_in_is_always_here() -> None:
    starter = find_entry("starter")
    assert is_cached(starter) and local_file(starter) is None and pull(starter) is None


def test_what_people_must_fetch_comes_with_the_steps(own_cache: Path) -> None:
    entry = find_entry("ovsegmentor-vitb16-bert")
    path = own_cache / "models" / "ovsegmentor-vitb16-bert.safetensors"
    assert not is_cached(entry)
    with pytest.raises(ModelError) as caught:
        pull(entry)
    assert f"ovseg models convert FILE.pth {path}" in str(caught.value)
    assert entry.source in str(caught.value)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"converted")
    assert is_cached(entry) and pull(entry) == path
