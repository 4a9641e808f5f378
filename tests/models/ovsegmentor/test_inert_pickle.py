"""Pickles read as data: nothing in them runs, whatever they are."""

import collections
import os
import pickle
import random
from pathlib import Path
from typing import Any

import pytest

from ovseg.errors import ModelError
from ovseg.models.ovsegmentor.inert_pickle import Inert, Name, read_pickle
from tests.models.torch_files import named, program, short, tupled, whole

PLAIN: Any = {
    "whole": [0, 1, 255, 65_536, -1, 2**40, -(2**70)],
    "fractions": (0.5, -1e300, float("inf")),
    "text": ["", "é🦓", "x" * 300],
    "bytes": [b"", b"\x00\xff", b"y" * 300],
    "nothing": None,
    "truth": [True, False],
    "nested": {"a": ({"b": [()]},), 3: "three", None: 0},
    "set": {1, 2, 3},
}


class Runs:
    """Runs a command when it is unpickled."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> Any:
        return self.call, self.arguments


def read(data: bytes, *expected: Name) -> Any:
    return read_pickle(data, "file", lambda name: name in expected)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_plain_data_comes_back(protocol: int) -> None:
    data = dict(PLAIN)
    names: list[Name] = []
    if protocol < 4:  # sets and bytes are calls before
        data.pop("set"), data.pop("bytes")
    assert read(pickle.dumps(data, protocol), *names) == data


def test_shared_parts_stay_shared() -> None:
    part = [1]
    first, second = read(pickle.dumps((part, part), 2))
    assert first is second


def test_ordered_dictionaries_are_dictionaries() -> None:
    ordered = collections.OrderedDict(a=1)
    ordered._metadata = {"": 1}  # type: ignore[attr-defined]  # as torch's state dicts have
    assert read(pickle.dumps(ordered, 2), Name("collections", "OrderedDict")) == {"a": 1}


def test_objects_are_inert_with_their_state() -> None:
    class_name = Name("pathlib", "PurePosixPath")
    made = read(
        program(named("pathlib", "PurePosixPath") + tupled(short("/etc")) + b"R"), class_name
    )
    assert isinstance(made, Inert)
    assert (made.made_by, made.arguments) == (class_name, ("/etc",))
    state = named("x", "Y") + b")\x81}" + short("v") + whole(3) + b"sb"
    assert read(program(state), Name("x", "Y")).state == {"v": 3}


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda evil: evil,
        lambda evil: {"model": evil},
        lambda evil: {"model": {}, "optimizer": [{"deep": (evil,)}]},
        lambda evil: [[[[evil]]]],
    ],
)
def test_an_attack_is_refused_and_does_not_run(tmp_path: Path, protocol: int, wrap: Any) -> None:
    marker = tmp_path / "ran"
    data = pickle.dumps(wrap(Runs(os.system, f"touch {marker}")), protocol)
    with pytest.raises(ModelError, match="refused"):
        read(data, Name("collections", "OrderedDict"))
    assert not marker.exists()
    pickle.loads(data)  # the attack is a real one
    assert marker.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "eval"),
        ("builtins", "exec"),
        ("builtins", "getattr"),
        ("builtins", "__import__"),
        ("os", "system"),
        ("posix", "system"),
        ("nt", "system"),
        ("subprocess", "Popen"),
        ("runpy", "_run_code"),
        ("torch", "load"),
        ("torch.hub", "load"),
        ("operator", "attrgetter"),
        ("functools", "partial"),
        ("ovseg.models.ovsegmentor.inert_pickle", "read_pickle"),
    ],
)
@pytest.mark.parametrize("stacked", [False, True])
def test_names_of_code_are_refused(module: str, name: str, stacked: bool) -> None:
    name_it = short(module) + short(name) + b"\x93" if stacked else named(module, name)
    for use in (b"", b")R", b")\x81", b")\x81}b"):
        with pytest.raises(ModelError, match=f"refers to {module}.{name}"):
            read(program(name_it + use), Name("collections", "OrderedDict"))


@pytest.mark.parametrize(
    "body",
    [
        short("os.system") + b")R",  # call a string
        named("x", "Y") + b")R)R",  # call what a call gave
        named("x", "Y") + b")\x81)\x81",
        named("x", "Y") + b"}R",  # arguments that are no tuple
        whole(1) + b"}b",  # state for a number
        b"(ios\nsystem\n",  # INST
        b"(" + named("x", "Y") + b"o",  # OBJ
        b"\x82\x01",  # EXT1
        b"Pos.system\n",  # PERSID
        short("id") + b"Q",  # BINPERSID where none is expected
        b"S'x'\n",  # STRING
        b"I1\n",
        named("x", "Y") + b")}\x92",  # NEWOBJ_EX
        b"\x96" + b"\x00" * 8,  # BYTEARRAY8
        b"\x97",  # NEXT_BUFFER
    ],
)
def test_opcodes_with_no_place_in_data_are_refused(body: bytes) -> None:
    with pytest.raises(ModelError, match="refused"):
        read(program(body), Name("x", "Y"))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"]]",
        b"(",
        b"0",
        b"h\x05",
        b"s",
        b"u",
        b"t",
        b"}](u",
        b"}(KKu",
        b"]" + whole(1) + whole(2) + b"s",
        whole(1) + b"(e",
        b"}]" + whole(1) + b"s",  # a list as a key
        b"}" + b")" + b"\x85" * 200_000 + whole(1) + b"s",  # a tuple nested 200,000 times as a key
        b"\x93",
    ],
)
def test_nonsense_is_damage(body: bytes) -> None:
    with pytest.raises(ModelError, match="damaged"):
        read(program(body))


def test_a_deeply_nested_value_does_no_harm() -> None:
    value = read(program(b")" + b"\x85" * 200_000))
    assert isinstance(value, tuple)


def test_any_cut_and_any_flipped_byte_ends_in_a_value_or_our_error() -> None:
    whole_file = pickle.dumps({**PLAIN, "object": Path("x")}, 4)
    generator = random.Random(0)
    for cut in range(len(whole_file)):
        with pytest.raises(ModelError):
            read(whole_file[:cut])
    for _ in range(2000):
        altered = bytearray(whole_file)
        altered[generator.randrange(len(altered))] = generator.randrange(256)
        try:
            read(bytes(altered))
        except ModelError:
            continue
