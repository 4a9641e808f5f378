import pytest

from ovseg.data.cutouts.naming import Description, Named, NameTable, Rejected, name_of
from ovseg.errors import DataError

TABLE = NameTable()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("A cat.", "cat"),
        ("A white kitten.", "cat"),
        ("A computer mouse. Squeak!", "computer mouse"),
        ("A mouse.", "mouse"),
        ("A slice of pizza.", "pizza"),
        ("A cup of espresso coffee.", "cup"),
        ("A “Fuji” apple.", "apple"),
        ("A baby sheep (a lamb).", "sheep"),
        ("A woman dancing in a ball gown.", "woman"),
        ("A knight’s helmet.", "helmet"),
        ("A pair of closed scissors.", "scissors"),
        ("A zorilla.", "zorilla"),
        ("A glass of water.", "glass"),
        ("A bus.", "bus"),
        ("A pair of skis.", "skis"),
        ("The baby of a gnu.", "gnu"),
        ("A baby.", "baby"),
        ("A speech balloon.", "speech bubble"),
    ],
)
def test_a_description_names_its_head_noun(text: str, name: str) -> None:
    assert name_of(Description(text), TABLE) == Named(name)


@pytest.mark.parametrize(
    ("text", "name"), [("Some cherries.", "cherry"), ("A bunch of grapes.", "grape")]
)
def test_pictures_of_several_say_so(text: str, name: str) -> None:
    assert name_of(Description(text), TABLE) == Named(name, several=True)


@pytest.mark.parametrize(
    ("text", "keywords", "reason"),
    [
        ("The letter a.", (), "nothing visible"),
        ("The sign for the letter A.", (), "nothing visible"),
        ("Excited!", (), "not understood"),
        ("Farfalla stilizzata", ("insect",), "not understood"),
        ("Cow", ("roadsign",), "sign or symbol"),
        ("", (), "no usable words"),
    ],
)
def test_what_names_nothing_is_rejected(text: str, keywords: tuple[str, ...], reason: str) -> None:
    with pytest.raises(Rejected, match=reason):
        name_of(Description(text, keywords), TABLE)


def test_title_and_keyword_must_agree_on_a_word_outside_the_table() -> None:
    assert name_of(Description("Yellow Gizmo_02", ("gizmo", "tool")), TABLE).name == "gizmo"
    with pytest.raises(Rejected):
        name_of(Description("Yellow Gizmo_02", ("tool",)), TABLE)


@pytest.mark.parametrize(
    ("single", "many"),
    [
        ("bus", "buses"), ("glass", "glasses"), ("cherry", "cherries"), ("knife", "knives"),
        ("computer mouse", "computer mice"), ("sheep", "sheep"), ("potato", "potatoes"),
        ("key", "keys"), ("box", "boxes"), ("cactus", "cactuses"), ("toothbrush", "toothbrushes"),
    ],
)  # fmt: skip
def test_plural_and_back(single: str, many: str) -> None:
    assert TABLE.plural(single) == many
    if single != "glass":  # "glasses" are worn, too: the table keeps them apart
        assert TABLE.singular(many) == single
    assert TABLE.singular(single) == single


def test_a_table_of_the_users_own_decides(tmp_path) -> None:
    path = tmp_path / "names.toml"
    path.write_text('deny = ["cat"]\n[names]\nfeline = ["lion"]\n')
    table = NameTable(path)
    assert name_of(Description("A big lion."), table).name == "feline"
    with pytest.raises(Rejected):
        name_of(Description("A cat."), table)


@pytest.mark.parametrize("text", ["deny = 3", "[names]\ncat = 'kitten'", "names = [", "\xff"])
def test_a_broken_table_is_one_clear_error(tmp_path, text: str) -> None:
    path = tmp_path / "names.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"names\.toml"):
        NameTable(path)
