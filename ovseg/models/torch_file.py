"""Files of `torch.save`, as released checkpoints come.

The file is a pickle in a zip, which is a program. torch reads it with its restricted unpickler,
which runs nothing but the making of tensors; classes of stored configurations are stand-ins that
keep what they are given. Before that the pickle is looked through: a name, an opcode or a size that
no such file needs is refused, so that a file made to run code is told apart from a damaged one.
Tensors stay in the file, mapped into memory: none can be larger than it.
"""

import pickletools
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ovseg.errors import MissingDependencyError, ModelError
from ovseg.models.checkpoint import own_name

if TYPE_CHECKING:
    from torch import Tensor

_MAX_PICKLE_BYTES = 256 << 20
_MAX_OPCODES = 1_000_000  # some seconds; a checkpoint of a thousand tensors has 50,000
_MAX_TUPLE = 1_000  # values in a tuple, however nested: as a key, it is walked each time
_MAX_CONFIG_NODES = 100_000
_MAX_CONFIG_DEPTH = 50
# The names that `torch.save` writes for tensors; torch brings its own functions for them.
_TENSOR_NAMES = re.compile(
    r"torch (Double|Float|Half|BFloat16|Long|Int|Short|Char|Byte|Bool)Storage"
    r"|torch\._utils _rebuild_(tensor_v2|parameter)"
    r"|collections OrderedDict"
)
# Those that released files mention beside tensors: the stored configuration and its types, and the
# numbers of a training log. A stand-in takes the place of each.
_OTHER_NAMES = re.compile(
    r"(omegaconf(\.\w+)*|typing) \w+"
    r"|(builtins|__builtin__) (dict|list|tuple|set|int|long|float|bool|str|unicode|object)"
    r"|collections (defaultdict|Counter)"
    r"|numpy(\.(core|_core)\.multiarray)? (dtype|ndarray|scalar|_reconstruct)"
    r"|pathlib (Pure)?(Posix|Windows)Path"
)
_BUILT_INS = ("dict", "list", "tuple", "set", "int", "float", "bool", "str", "object")
# What torch's unpickler knows of the pickle protocol 2, the one that `torch.save` writes.
_OPCODES = re.compile(
    "PROTO|STOP|GLOBAL|REDUCE|NEWOBJ|BUILD|BINPERSID|MARK|NONE|NEWTRUE|NEWFALSE|BININT[12]?|LONG1"
    "|BINFLOAT|BINUNICODE|EMPTY_(DICT|LIST|TUPLE|SET)|TUPLE[123]?|APPENDS?|SETITEMS?"
    "|(LONG_)?BIN(GET|PUT)"
)


@dataclass(frozen=True, eq=False)
class TorchFile:
    """What a file holds.

    Attributes:
        path: the file.
        content: what was saved; classes that are only names here are `StandIn`.
        sizes: bytes of its storages.
    """

    path: Path
    content: Any
    sizes: set[int]

    def tensors(self, values: Any) -> "dict[str, Tensor]":
        """The tensors of a dictionary in the file, by their names in the model itself.

        Raises:
            ModelError: one is not as large as what lies in the file for it.
        """
        from torch import Tensor

        found = {
            own_name(name): value
            for name, value in values.items()
            if isinstance(name, str) and isinstance(value, Tensor)
        }
        _check_tensors(self.path, found, self.sizes)
        return found


class StandIn:
    """In place of an object of a class that is only a name here: what it was made of."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


def read_torch_file(path: Path) -> TorchFile:
    """Read a file of `torch.save`; nothing in it runs.

    Raises:
        ModelError: another kind of file, damaged, or made to run code.
        MissingDependencyError: torch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingDependencyError("torch", "torch", "reading a released checkpoint") from error
    records = _check_archive(path)
    stand_ins = _stand_ins(_other_names(records.pickled, path))
    try:
        with torch.serialization.safe_globals(stand_ins):
            content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except Exception as error:  # torch, its unpickler and its archives each have their own
        raise ModelError(_damage(path, error)) from None
    return TorchFile(path, content, records.sizes)


def plain(value: Any, where: str) -> Any:
    """The plain values inside OmegaConf's containers and nodes, themselves stand-ins.

    Raises:
        ModelError: nested deeper, or larger, than a configuration can be.
    """
    budget = [_MAX_CONFIG_NODES]

    def walk(value: Any, depth: int) -> Any:
        budget[0] -= 1
        if depth > _MAX_CONFIG_DEPTH or budget[0] < 0:
            raise ModelError(f"{where}: refused: its configuration is too deep or too large")
        if isinstance(value, StandIn):
            state = value.state if isinstance(value.state, dict) else {}
            return walk(state.get("_content", state.get("_val")), depth + 1)
        if isinstance(value, dict):
            return {str(key): walk(inner, depth + 1) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [walk(inner, depth + 1) for inner in value]
        return value if isinstance(value, str | int | float) else None

    return walk(value, 0)


class _Records(NamedTuple):
    """The pickle of an archive, and how many bytes its storages have."""

    pickled: bytes
    sizes: set[int]


def _check_archive(path: Path) -> _Records:
    """The records of a file of `torch.save`, none of which can be larger than the file."""
    try:
        with path.open("rb") as stream:
            start = stream.read(512)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from None
    if not start.startswith(b"PK"):
        raise ModelError(f"{path}: {_what_else(start)}")
    try:
        with zipfile.ZipFile(path) as archive:
            return _check_records(path, archive)
    except ModelError:
        raise
    except Exception as error:  # zipfile has many for files that are cut, altered or made up
        raise ModelError(_damage(path, error)) from None


def _check_records(path: Path, archive: zipfile.ZipFile) -> _Records:
    names = archive.namelist()
    pickles = [name for name in names if name.endswith(".pkl")]
    if len(pickles) != 1 or not pickles[0].endswith("/data.pkl"):
        raise ModelError(f"{path}: a zip, but not one that torch.save wrote")
    for record in archive.infolist():
        if record.compress_type != zipfile.ZIP_STORED or record.file_size > path.stat().st_size:
            raise ModelError(f"{path}: record {record.filename} is compressed or too large")
    prefix = pickles[0].removesuffix("data.pkl")
    if f"{prefix}byteorder" in names and archive.read(f"{prefix}byteorder") != b"little":
        raise ModelError(f"{path}: written on a big-endian machine, which is not read")
    if archive.getinfo(pickles[0]).file_size > _MAX_PICKLE_BYTES:
        raise ModelError(f"{path}: refused: its pickle is larger than a checkpoint's is")
    storages = [r for r in archive.infolist() if r.filename.startswith(f"{prefix}data/")]
    return _Records(archive.read(pickles[0]), {record.file_size for record in storages})


def _what_else(start: bytes) -> str:
    if start[:1] == b"\x80" or start[257:262] == b"ustar":
        return (
            "written by torch before 1.6, in a format that cannot be read without running it. "
            "Where you trust the file, load it with torch there and save it again"
        )
    return "no file of torch.save"


def _other_names(pickled: bytes, path: Path) -> set[str]:
    """Names in a pickle that a stand-in is needed for, as "module name".

    Raises:
        ModelError: a name, opcode or tuple that has no place in a checkpoint.
    """
    names: set[str] = set()
    sizes: list[int] = []
    memo: dict[int, int] = {}
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(pickled)):
            if not _is_known(opcode.name) or (opcode.name == "PROTO" and argument != 2):
                raise ModelError(f"{path}: refused: its pickle uses {opcode.name}")
            if opcode.name == "GLOBAL" and not _TENSOR_NAMES.fullmatch(str(argument)):
                names.add(_expected(str(argument), path))
            _follow(opcode, argument, sizes, memo)
            if count > _MAX_OPCODES or (sizes and sizes[-1] > _MAX_TUPLE):
                raise ModelError(f"{path}: refused: its pickle is larger than a checkpoint's is")
    except (IndexError, KeyError, ValueError) as error:
        raise ModelError(f"{path}: its pickle is damaged ({error})") from None
    return names


@cache
def _is_known(opcode: str) -> bool:
    return _OPCODES.fullmatch(opcode) is not None


def _expected(name: str, path: Path) -> str:
    if not _OTHER_NAMES.fullmatch(name):
        raise ModelError(
            f"{path}: refused: it refers to {name.replace(' ', '.')}, which a checkpoint does not "
            "need and which may run code. Nothing of it was run"
        )
    return name


def _follow(
    opcode: pickletools.OpcodeInfo, argument: Any, sizes: list[int], memo: dict[int, int]
) -> None:
    """Do to a stack of sizes what an opcode does to the values; marks have the size 0.

    Only what a tuple holds is counted: nothing else that can be a key holds anything.
    """
    if opcode.name.endswith("PUT"):
        memo[argument] = sizes[-1]
        return
    if opcode.name.endswith("GET"):
        sizes.append(memo[argument])
        return
    taken = []
    for kind in reversed(opcode.stack_before):
        while kind is pickletools.stackslice and sizes[-1]:
            taken.append(sizes.pop())
        if kind is not pickletools.stackslice:
            taken.append(sizes.pop())
    size = 1 + sum(taken) if "TUPLE" in opcode.name else 1
    sizes.extend(size if kind is not pickletools.markobject else 0 for kind in opcode.stack_after)


def _stand_ins(names: set[str]) -> list[Any]:
    """Classes that torch takes for those of these names, and for Python's own types."""
    others = [name.split(" ") for name in sorted(names)]
    named = [*others, *(["builtins", name] for name in _BUILT_INS)]
    return [type(name, (StandIn,), {"__module__": module}) for module, name in named]


def _check_tensors(path: Path, tensors: "Mapping[str, Tensor]", sizes: set[int]) -> None:
    """Refuse tensors that are not as large as what lies in the file for them."""
    total = 0
    for name, tensor in tensors.items():
        stored = tensor.untyped_storage().nbytes()
        if stored not in sizes:
            raise ModelError(f"{path}: the storage of {name} has not the size it claims")
        if tensor.numel() * tensor.element_size() > stored:
            raise ModelError(f"{path}: {name} reaches beyond its storage")
        total += tensor.numel() * tensor.element_size()
    if total > 2 * path.stat().st_size + (1 << 20):  # one storage, named over and over
        raise ModelError(f"{path}: refused: its tensors are larger than the file")


def _damage(path: Path, error: Exception) -> str:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"{path}: damaged or incomplete ({reason}); fetch it again"
