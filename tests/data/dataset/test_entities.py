"""The list of entities and its file."""

from dataclasses import replace
from pathlib import Path

import pytest

from ovseg.data.dataset.entities import EntityList, entities_toml, entity, load_entities
from ovseg.errors import DataError, UsageError


def test_the_published_list_has_73_entities() -> None:
    paper = load_entities("paper100")
    assert len(paper) == 73
    names = {item.name: item for item in paper}
    assert {"kid", "prince"} <= set(names["people"].synonyms)
    assert "airplanes" in names["aeroplane"].forms


def test_saved_and_read_back(tmp_path: Path) -> None:
    dropped = replace(entity("view"), kept=False, reason='not "visible"\x7f')
    made = EntityList((replace(entity("dog", ["pup"], ["Pup"]), count=3),), (dropped,))
    (tmp_path / "entities.toml").write_text(entities_toml(made), encoding="utf-8")
    assert load_entities(str(tmp_path / "entities.toml")) == made


def test_a_plain_list(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("dog, puppy # best\n\n# none\nsofa,couch\n")
    assert [(e.name, e.synonyms) for e in load_entities(str(path))] == [
        ("dog", ("puppy",)),
        ("sofa", ("couch",)),
    ]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("[[entity]]\nname = 'a'\nfroms = []\n", DataError, "unknown key 'froms'"),
        ("[[entity]\n", DataError, "no list of entities"),
        ("[[entity]]\nname = 'a'\nkept = false\n", UsageError, "keeps no entity"),
        ("[[entity]]\nname='dog'\n[[entity]]\nname='pup'\nsynonyms=['dog']\n", UsageError, "both"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, error: type, message: str) -> None:
    path = tmp_path / "entities.toml"
    path.write_text(text)
    with pytest.raises(error, match=message):
        load_entities(str(path))


def test_a_missing_file() -> None:
    with pytest.raises(DataError, match="paper100"):
        load_entities("absent.toml")
