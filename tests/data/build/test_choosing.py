"""Choosing entities: the sample, the visual filter, merging, and the tagger's verdicts."""

from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ovseg.data.build import pipeline as build
from ovseg.data.build.choosing import (
    NounCounts,
    choose_entities,
    count_nouns,
    load_visual_nouns,
    sample_captions,
)
from ovseg.data.build.engine import Engine
from ovseg.data.build.jobs import match_chunk
from ovseg.data.build.matching import Matcher
from ovseg.data.build.pipeline import BuildOptions, EntityOptions, build_from_source
from ovseg.data.build.sources import Columns, resolve_source
from ovseg.data.build.tagging import Tagger, measure_agreement
from ovseg.data.dataset.entities import load_entities
from ovseg.errors import DataError, UsageError
from tests.data.pictures import picture


@pytest.fixture(scope="module")
def tagger() -> Tagger:
    try:
        return Tagger()
    except DataError as error:
        pytest.skip(str(error))


def _chunks(count: int, size: int) -> list[pl.DataFrame]:
    captions = [str(number) for number in range(count)]
    return [pl.DataFrame({"caption": captions[at : at + size]}) for at in range(0, count, size)]


def test_the_sample_is_uniform_seeded_and_in_order() -> None:
    first = sample_captions(_chunks(1000, 64), 50, seed=1)
    assert first == sample_captions(_chunks(1000, 999), 50, seed=1)
    assert first != sample_captions(_chunks(1000, 64), 50, seed=2)
    assert len(set(first)) == 50 and first == sorted(first, key=int)
    drawn = Counter(n for s in range(400) for n in sample_captions(_chunks(40, 7), 10, seed=s))
    assert len(drawn) == 40 and max(abs(count - 100) for count in drawn.values()) < 40
    assert sample_captions(_chunks(5, 2), 10, seed=0) == list("01234")


def test_what_can_be_pointed_at() -> None:
    visual = load_visual_nouns()
    for noun in ("view", "day", "time", "part", "design", "background", "style", "photo"):
        assert visual.why_not(noun), noun
    for entity in load_entities("paper100"):
        assert visual.shared[entity.name] == entity.name
    assert visual.shared["couch"] == "sofa" and visual.shared["bride"] == "people"
    for noun in ("tiger", "ostrich", "printer", "hanger"):
        assert visual.shared[noun] == noun  # WordNet's first sense of each is a person
    assert visual.shared["cooky"] == "cookie"  # what the tagger makes of "cookies"
    assert "edit" in visual.why_not("offspring")


def test_your_own_edits_come_last(tmp_path: Path) -> None:
    path = tmp_path / "edits.txt"
    path.write_text("# mine\n+sunset\n-dog\n+lorry=truck\n")
    visual = load_visual_nouns(path)
    assert visual.why_not("sunset") == "" and "edit" in visual.why_not("dog")
    assert visual.shared["lorry"] == "truck"
    path.write_text("sunset\n")
    with pytest.raises(UsageError, match="line 1"):
        load_visual_nouns(path)
    with pytest.raises(DataError, match="cannot read"):
        load_visual_nouns(tmp_path / "absent.txt")


def test_the_most_frequent_are_kept_and_the_rest_says_why() -> None:
    counts = NounCounts(
        Counter(dog=9, view=50, sofa=4, couch=4, cat=3, light=8, modern=2),
        as_noun=Counter(light=60, dog=90, modern=2),
        otherwise=Counter(light=40, dog=1, modern=70),
    )
    made = choose_entities(counts, load_visual_nouns(), top=3)
    assert [(item.name, item.count) for item in made] == [("dog", 9), ("light", 8), ("sofa", 8)]
    assert made.kept[2].synonyms == ("couch",) and "couches" in made.kept[2].forms
    assert made.kept[1].ambiguous == ("light",) and made.kept[0].ambiguous == ()
    reasons = {item.name: item.reason for item in made.dropped}
    assert reasons == {
        "view": "not among the visible nouns",
        "cat": "not among the 3 most frequent",
        "modern": "a noun in 2 of 72 places only",
    }


def test_apart_synonyms_and_persons_are_entities_of_their_own() -> None:
    counts = NounCounts(Counter(man=9, woman=7, sofa=4, couch=3), as_noun=Counter(man=9, woman=7))
    together = choose_entities(counts, load_visual_nouns(), top=4)
    assert [(item.name, item.count) for item in together] == [("people", 16), ("sofa", 7)]
    apart = choose_entities(counts, load_visual_nouns().apart(), top=3)
    assert [(item.name, item.count) for item in apart] == [("man", 9), ("woman", 7), ("sofa", 4)]
    assert all(not item.synonyms for item in apart)
    others = build._entities_identity(EntityOptions(apart=True))
    assert others != build._entities_identity(EntityOptions())


def test_the_tagger_is_recorded_and_another_one_is_noticed(
    tagger: Tagger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(3):
        (tmp_path / f"photos/{number}.jpg").write_bytes(picture(number))
        (tmp_path / f"photos/{number}.txt").write_text("a dog on a sofa")
    source = resolve_source(str(tmp_path / "photos"), "", Columns(), None)
    options = BuildOptions(EntityOptions(top=2), engine=Engine(workers=1), partners=1)
    build_from_source(source, tmp_path / "data", options)
    used = load_entities(str(tmp_path / "data/entities.toml")).tagger
    name, version = used.split()
    assert name.startswith("en_core_web_sm") and version[0].isdigit()
    monkeypatch.setattr(build, "identify", lambda _: "en_core_web_sm 9.9")
    with pytest.raises(UsageError, match=f"tagger was {used}, is en_core_web_sm 9.9"):
        build_from_source(source, tmp_path / "data", options)
    # Without any tagger the finished data set can still be asked for.
    monkeypatch.setattr(build, "identify", lambda _: "")
    assert build_from_source(source, tmp_path / "data", options).complete


def test_nouns_are_counted_once_a_caption(tagger: Tagger) -> None:
    counts = count_nouns(["the dogs saw a dog", "a man walks his dog", "light blue sky"], tagger)
    assert counts.captions["dog"] == 2 and counts.captions["man"] == 1
    assert counts.otherwise["light"] == 1 and counts.as_noun["sky"] == 1


def test_ambiguous_forms_are_decided_by_the_tagger(tagger: Tagger) -> None:
    captions = [
        "a light blue dress with a dog",
        "the light of a lamp on the wall",
        "an orange cat",
        "she peeled an orange and ate it",
        "a person will bear the weight",
    ]
    chunk = pl.DataFrame({"locator": list("abcde"), "caption": captions}).with_columns(
        member_offset=pl.lit(None, pl.Int64), member_size=pl.lit(None, pl.Int64)
    )
    matcher = Matcher(load_entities("paper100"))
    names = [entity.name for entity in load_entities("paper100")]
    found = match_chunk(chunk, matcher, tagger).to_pylist()
    assert {row["locator"]: [names[n] for n in row["entities"]] for row in found} == {
        "a": ["dog"],
        "b": ["light"],
        "c": ["cat"],
        "d": ["orange"],
        "e": ["people"],
    }


def test_agreement_counts(tagger: Tagger) -> None:
    captions = ["a light blue dog", "the light of a lamp", "nothing"]
    measured = measure_agreement(
        [pl.DataFrame({"caption": captions})], load_entities("paper100"), tagger
    )
    assert (measured.captions, measured.captions_matched, measured.matches) == (3, 2, 3)
    assert np.isclose(measured.lexical, 2 / 3) and measured.pos == 1.0
    assert measured.forms[0].form == "light" and measured.forms[0].share == 0.5
