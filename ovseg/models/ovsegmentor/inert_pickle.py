"""Reading a pickle as data: an interpreter of its opcodes that has nothing to run.

A pickle is a program. Python's unpickler, restricted or not, runs it on live objects; this one
builds numbers, strings and plain containers, and stands in an `Inert` for every object. A class or
function is only ever a `Name`; nothing is imported and nothing is called, whatever the file says.
Names that the caller does not expect end the reading, so a file that was made to run code is
refused rather than read around.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ovseg.errors import ModelError

_MAX_OPCODES = 20_000_000


@dataclass(frozen=True)
class Name:
    """What the pickle calls a class or function."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Inert:
    """What the pickle would have made by calling `made_by`: the call's arguments, and the state."""

    made_by: Name
    arguments: tuple[Any, ...]
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)


Allow = Callable[[Name], bool]
Make = Callable[[Name, tuple[Any, ...]], Any]
Persistent = Callable[[Any], Any]


def make_inert(name: Name, arguments: tuple[Any, ...]) -> Any:
    """An ordered dictionary as a dictionary; everything else as an `Inert`."""
    if name == Name("collections", "OrderedDict") and not arguments:
        return {}
    return Inert(name, arguments)


def read_pickle(
    data: bytes,
    where: str,
    allow: Allow,
    make: Make = make_inert,
    persistent: Persistent | None = None,
) -> Any:
    """Interpret a pickle of protocol 2 to 4.

    Args:
        where: what to call the file in messages.
        allow: whether a name is expected in this kind of file.
        make: turns a call into a value; must itself call nothing the file chose.
        persistent: turns a persistent id into a value; without it there must be none.

    Raises:
        ModelError: a name, opcode or structure that has no place in plain data.
    """
    reader = _Reader(where, allow, make, persistent)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if count > _MAX_OPCODES:
                raise ModelError(f"{where}: its pickle is longer than a checkpoint's can be")
            reader.step(opcode.name, argument)
        return reader.result()
    except (IndexError, KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ModelError(f"{where}: its pickle is damaged ({error})") from None


class _Mark:
    """The place on the stack where a container's items begin."""


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_ARGUMENTS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
}
_EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": set,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_IGNORED = {"PROTO", "FRAME", "STOP"}


class _Reader:
    """The stack machine of the pickle protocol, on inert values."""

    def __init__(self, where: str, allow: Allow, make: Make, persistent: Persistent | None) -> None:
        self._where, self._allow, self._make, self._persistent = where, allow, make, persistent
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def step(self, opcode: str, argument: Any) -> None:
        """Apply one opcode; those of running code, and of protocols 0, 1 and 5, are not known."""
        if opcode in _CONSTANTS:
            self._stack.append(_CONSTANTS[opcode])
        elif opcode in _ARGUMENTS:
            self._stack.append(argument)
        elif opcode in _EMPTY:
            self._stack.append(_EMPTY[opcode]())
        elif opcode in _TUPLES:
            count = _TUPLES[opcode]
            self._stack.append(tuple(self._pop() for _ in range(count))[::-1])
        elif opcode not in _IGNORED:
            method = getattr(self, f"_op_{opcode.lower()}", None)
            if method is None:
                raise ModelError(f"{self._where}: refused: its pickle uses {opcode}")
            method(argument)

    def result(self) -> Any:
        """What is left when all opcodes are read."""
        (value,) = self._stack
        if value is _Mark:
            raise ValueError("it ends in a mark")
        return value

    def _pop(self) -> Any:
        value = self._stack.pop()
        if value is _Mark:
            raise ValueError("an item is missing")
        return value

    def _pop_to_mark(self) -> list[Any]:
        items: list[Any] = []
        while (value := self._stack.pop()) is not _Mark:
            items.append(value)
        return items[::-1]

    def _name(self, module: Any, name: Any) -> Name:
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("a name is no string")
        found = Name(module, name)
        if not self._allow(found):
            raise ModelError(
                f"{self._where}: refused: it refers to {found}, which a checkpoint does not need "
                "and which may run code. Nothing of it was run"
            )
        return found

    def _call(self, made_by: Any, arguments: Any) -> Any:
        if not isinstance(made_by, Name) or not isinstance(arguments, tuple):
            raise ModelError(f"{self._where}: refused: its pickle calls something without a name")
        return self._make(made_by, arguments)

    def _op_global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._stack.append(self._name(module, name))

    def _op_stack_global(self, _: Any) -> None:
        name, module = self._pop(), self._pop()
        self._stack.append(self._name(module, name))

    def _op_reduce(self, _: Any) -> None:
        arguments, made_by = self._pop(), self._pop()
        self._stack.append(self._call(made_by, arguments))

    _op_newobj = _op_reduce  # both make an object from a name and arguments

    def _op_build(self, _: Any) -> None:
        state, target = self._pop(), self._stack[-1]
        if isinstance(target, Inert):
            target.state = state
        elif not isinstance(target, dict):  # a state dict's own attributes are of no use here
            raise ModelError(f"{self._where}: refused: its pickle gives state to a plain value")

    def _op_binpersid(self, _: Any) -> None:
        if self._persistent is None:
            raise ModelError(f"{self._where}: refused: its pickle refers to something outside")
        self._stack.append(self._persistent(self._pop()))

    def _op_mark(self, _: Any) -> None:
        self._stack.append(_Mark)

    def _op_pop(self, _: Any) -> None:
        self._stack.pop()

    def _op_pop_mark(self, _: Any) -> None:
        self._pop_to_mark()

    def _op_tuple(self, _: Any) -> None:
        self._stack.append(tuple(self._pop_to_mark()))

    def _op_append(self, _: Any) -> None:
        value = self._pop()
        self._list().append(value)

    def _op_appends(self, _: Any) -> None:
        items = self._pop_to_mark()
        self._list().extend(items)

    def _op_additems(self, _: Any) -> None:
        items = self._pop_to_mark()
        if not isinstance(self._stack[-1], set):
            raise ValueError("items for what is no set")
        self._stack[-1].update(_key(item) for item in items)

    def _op_setitem(self, _: Any) -> None:
        value, key = self._pop(), self._pop()
        self._items()[_key(key)] = value

    def _op_setitems(self, _: Any) -> None:
        pairs = self._pop_to_mark()
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            self._items()[_key(key)] = value

    def _op_binput(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    _op_long_binput = _op_binput

    def _op_memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _op_binget(self, index: int) -> None:
        self._stack.append(self._memo[index])

    _op_long_binget = _op_binget

    def _list(self) -> list[Any]:
        if not isinstance(self._stack[-1], list):
            raise ValueError("items for what is no list")
        return self._stack[-1]

    def _items(self) -> dict[Any, Any]:
        target = self._stack[-1]
        items = target.items if isinstance(target, Inert) else target
        if not isinstance(items, dict):
            raise ValueError("items for what is no dictionary")
        return items


def _key(value: Any) -> Any:
    """A key as it is, if plain: hashing a tuple nested a million times would end the process."""
    if not isinstance(value, str | bytes | int | float | Name | None):
        raise ValueError("a key is no plain value")
    return value
