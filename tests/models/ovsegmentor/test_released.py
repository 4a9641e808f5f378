"""Released files, sound and hostile: what they hold is read, and nothing in them runs."""

import collections
import io
import os
import pickle
import random
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from ovseg.errors import ModelError  # noqa: E402
from ovseg.models.ovsegmentor.released import read_released  # noqa: E402
from ovseg.models.torch_file import StandIn, plain  # noqa: E402
from tests.models.torch_files import (  # noqa: E402
    named,
    program,
    short,
    state,
    storage,
    tensor,
    tupled,
    whole,
    write_archive,
)

FLOATS = struct.pack("<4f", 1.0, 2.0, 3.0, 4.0)
MODEL = {"img_encoder.pos_embed": torch.zeros(3)}


class Runs:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


def save(path: Path, tensors: dict[str, Any], **more: Any) -> Path:
    torch.save({"model": tensors, **more}, path)
    return path


def archive(folder: Path, pickled: bytes) -> Path:
    return write_archive(folder / "a.pth", pickled, {"0": FLOATS})


def with_more(body: bytes) -> bytes:
    """A sound pickle with something else beside the model."""
    model = short("model") + b"}" + short("img_encoder.pos_embed") + tensor() + b"ss"
    return program(b"}" + model + short("config") + body + b"s")


@pytest.mark.parametrize(
    "dtype",
    [
        "float64",
        "float32",
        "float16",
        "bfloat16",
        "int64",
        "int32",
        "int16",
        "int8",
        "uint8",
        "bool",
    ],
)
def test_every_dtype_comes_back_bit_for_bit(tmp_path: Path, dtype: str) -> None:
    values = (torch.arange(12) % 2 if dtype == "bool" else torch.arange(12)).to(
        getattr(torch, dtype)
    )
    path = save(tmp_path / "a.pth", {"img_encoder.x": values.reshape(3, 4)})
    (found,) = read_released(path).tensors.values()
    assert found.dtype == values.dtype
    assert torch.equal(found, values.reshape(3, 4))


def test_views_scalars_empties_and_parameters_come_back(tmp_path: Path) -> None:
    base = torch.randn(4, 6)
    tensors = {
        "img_encoder.transposed": base.T,
        "img_encoder.sliced": base[1:3, ::2],
        "img_encoder.scalar": torch.tensor(2.5),
        "img_encoder.empty": torch.empty(0, 3),
        "img_encoder.parameter": torch.nn.Parameter(base),
    }
    found = read_released(save(tmp_path / "a.pth", collections.OrderedDict(tensors))).tensors
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], value) for name, value in tensors.items())


def test_nothing_is_written_to_the_file(tmp_path: Path) -> None:
    path = save(tmp_path / "a.pth", {"img_encoder.x": torch.zeros(3)})
    before = path.read_bytes()
    read_released(path).tensors["img_encoder.x"].add_(1)
    assert path.read_bytes() == before


def test_the_hand_made_archive_is_read(tmp_path: Path) -> None:
    found = read_released(archive(tmp_path, state(tensor())))
    assert found.tensors["img_encoder.pos_embed"].tolist() == [1, 2, 3, 4]


def test_objects_stand_in_with_their_state(tmp_path: Path) -> None:
    content = b"}" + short("_content") + b"}" + short("width") + whole(3) + b"ss"
    made = named("omegaconf.dictconfig", "DictConfig") + b")\x81" + content + b"b"
    assert read_released(archive(tmp_path, with_more(made))).config == {"width": 3}


@pytest.mark.parametrize(
    "value",
    [
        named("pathlib", "PurePosixPath") + tupled(short("/etc")) + b"R",
        named("collections", "defaultdict") + tupled(named("__builtin__", "dict")) + b"R",
        named("__builtin__", "long"),
        named("typing", "Any"),
        named("numpy.core.multiarray", "scalar") + tupled(whole(1)) + b"R",
    ],
)
def test_what_a_training_run_stores_beside_tensors_does_no_harm(
    tmp_path: Path, value: bytes
) -> None:
    assert len(read_released(archive(tmp_path, with_more(value))).tensors) == 1


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (tensor(offset=whole(1)), "damaged"),
        (tensor(shape=tupled(whole(5))), "damaged"),
        (tensor(strides=tupled(whole(2))), "damaged"),
        (tensor(shape=tupled(whole(2**31 - 1)), strides=tupled(whole(0))), "reaches beyond"),
        (tensor(offset=whole(-1)), "damaged"),
        (tensor(shape=tupled(whole(-1))), "damaged"),
        (tensor(strides=tupled(whole(-1))), "damaged"),
        (tensor(shape=tupled(whole(2), whole(2))), "damaged"),
        (tensor(source=whole(3)), "damaged"),
        (tensor(source=storage(count=5)), "not the size it claims"),
        (tensor(source=storage(count=3)), "damaged"),
        (tensor(source=storage(count=3), shape=tupled(whole(3))), "not the size it claims"),
        (tensor(source=storage(count=2**31 - 1)), "not the size it claims"),
        (tensor(source=storage(count=-4)), "damaged"),
        (tensor(source=storage(key="7")), "damaged"),
        (tensor(source=storage(key="../data.pkl")), "damaged"),
        (tensor(source=storage(kind=named("torch", "QInt8Storage"))), "refers to torch.QInt8"),
        (tensor(source=storage(kind=short("FloatStorage"))), "damaged"),
        (tensor(source=storage(kind=named("omegaconf.nodes", "AnyNode"))), "damaged"),
        (tensor(source=storage(kind=named("os", "system"))), "refers to os.system"),
        (short("os.system") + b"Q", "damaged"),
        (tupled(short("module"), named("torch", "FloatStorage")) + b"Q", "damaged"),
        (named("torch", "FloatStorage") + tupled(whole(9)) + b"R", "damaged"),
        (named("torch._utils", "_rebuild_parameter") + tupled(whole(9)) + b"R", "damaged"),
        (named("torch._utils", "_rebuild_tensor_v2") + b")R", "damaged"),
        (named("torch._utils", "_rebuild_tensor_v3") + b")R", "refers to"),
        (named("torch._utils", "_rebuild_meta_tensor_no_storage") + b")R", "refers to"),
        (named("builtins", "bytearray") + tupled(whole(2**31 - 1)) + b"R", "refers to"),
        (named("omegaconf", "os.system") + b")R", "refers to omegaconf.os.system"),
        (named("omegaconfig", "X") + b")R", "refers to omegaconfig.X"),
        (named("numpy", "load") + b")R", "refers to numpy.load"),
    ],
)
def test_tensors_that_are_not_what_they_claim_are_refused(
    tmp_path: Path, value: bytes, sentence: str
) -> None:
    path = archive(tmp_path, state(value))
    with pytest.raises(ModelError, match=sentence) as caught:
        read_released(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_one_storage_named_over_and_over_is_refused(tmp_path: Path) -> None:
    many = b"".join(
        short(f"img_encoder.{i}")
        + tensor(storage(count=1 << 18), shape=tupled(whole(1 << 18)))
        + b"s"
        for i in range(100)
    )
    pickled = program(b"}" + short("model") + b"}" + many + b"s")
    path = write_archive(tmp_path / "a.pth", pickled, {"0": b"\0" * (1 << 20)})
    with pytest.raises(ModelError, match="larger than the file"):
        read_released(path)


@pytest.mark.parametrize("place", ["model", "config", "optimizer", "metrics"])
def test_an_attack_in_any_part_of_the_file_is_refused(tmp_path: Path, place: str) -> None:
    marker = tmp_path / "ran"
    parts: dict[str, Any] = {"model": dict(MODEL)}
    if place == "model":
        parts["model"]["img_encoder.x"] = Runs(marker)
    else:
        parts[place] = {"x": [Runs(marker)]}
    path = tmp_path / "attack.pth"
    torch.save(parts, path)
    with pytest.raises(
        ModelError, match=r"refused: it refers to \w+\.system.*Nothing of it was run"
    ):
        read_released(path)
    assert not marker.exists()
    torch.load(path, weights_only=False)  # the attack is a real one
    assert marker.exists()


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
    data = pickle.dumps(wrap(Runs(marker)), protocol)
    with pytest.raises(ModelError, match="refused"):
        read_released(archive(tmp_path, data))
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
        ("ovseg.models.torch_file", "StandIn"),
    ],
)
def test_names_of_code_are_refused(tmp_path: Path, module: str, name: str) -> None:
    for use in (b"", b")R", b")\x81", b")\x81}b"):
        with pytest.raises(ModelError, match=f"refers to {module}.{name}"):
            read_released(archive(tmp_path, with_more(named(module, name) + use)))
    stacked = short(module) + short(name) + b"\x93"
    with pytest.raises(ModelError, match="refused: its pickle uses STACK_GLOBAL"):
        read_released(archive(tmp_path, with_more(stacked)))


@pytest.mark.parametrize(
    "body",
    [
        b"(ios\nsystem\n",  # INST
        b"(" + named("typing", "Y") + b"o",  # OBJ
        b"\x82\x01",  # EXT1
        b"Pos.system\n",  # PERSID
        b"S'x'\n",  # STRING
        b"I1\n",
        named("typing", "Y") + b")}\x92",  # NEWOBJ_EX
        b"\x96" + b"\x00" * 8,  # BYTEARRAY8
        b"\x97",  # NEXT_BUFFER
    ],
)
def test_opcodes_with_no_place_in_a_checkpoint_are_refused(tmp_path: Path, body: bytes) -> None:
    with pytest.raises(ModelError, match="refused"):
        read_released(archive(tmp_path, with_more(body)))


@pytest.mark.parametrize(
    "body",
    [
        short("os.system") + b")R",  # call a string
        named("typing", "Y") + b")R)R",  # call what a call gave
        named("typing", "Y") + b")\x81)\x81",
        named("typing", "Y") + b"KR",  # arguments that are no tuple
        whole(1) + b"}b",  # state for a number
        short("id") + b"Q",  # a persistent id that is no storage
        tupled(named("typing", "Y") + b"}]sb"),  # items for what is no dictionary
        b"]]",
        b"(",
        b"0",
        b"h\x05",
        b"ss",
        b"u",
        b"t",
        b"}](u",
        b"}(KKu",
        b"]" + whole(1) + whole(2) + b"s",
        whole(1) + b"(e",
        b"}]" + whole(1) + b"s",  # a list as a key
        b"}" + b")" + b"\x85" * 200_000 + whole(1) + b"s",  # a tuple nested 200,000 times as a key
        b"}" + b")" + b"q\x00h\x00\x86" * 200 + whole(1) + b"s",  # a key with 2**200 parts
    ],
)
def test_nonsense_is_one_line_and_ends_soon(tmp_path: Path, body: bytes) -> None:
    with pytest.raises(ModelError, match=r"damaged|refused") as caught:
        read_released(archive(tmp_path, with_more(body)))
    assert "\n" not in str(caught.value)


def test_the_old_format_is_named(tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    torch.save({"model": {}}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(ModelError, match=r"before 1\.6"):
        read_released(path)
    with tarfile.open(path, "w") as packed:
        packed.addfile(tarfile.TarInfo("pickle"), io.BytesIO())
    with pytest.raises(ModelError, match=r"before 1\.6"):
        read_released(path)


def test_other_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    with pytest.raises(ModelError, match=r"a\.pth: cannot be read: No such file"):
        read_released(path)
    with pytest.raises(ModelError, match="cannot be read"):
        read_released(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(ModelError, match=r"no file of torch\.save"):
        read_released(path)
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("readme.txt", "hello")
    with pytest.raises(ModelError, match="a zip, but not one that"):
        read_released(path)
    write_archive(path, pickle.dumps([1, 2], 2))
    with pytest.raises(ModelError, match="holds no 'model'"):
        read_released(path)
    write_archive(path, pickle.dumps({"model": {"visual.proj": 1}}, 2))
    with pytest.raises(ModelError, match="not of OVSegmentor"):
        read_released(path)


def test_a_compressed_record_is_refused(tmp_path: Path) -> None:
    path = write_archive(
        tmp_path / "a.pth", state(tensor()), {"0": FLOATS}, compression=zipfile.ZIP_DEFLATED
    )
    with pytest.raises(ModelError, match="compressed or too large"):
        read_released(path)


def test_a_big_endian_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("a/data.pkl", state(tensor()))
        packed.writestr("a/byteorder", "big")
    with pytest.raises(ModelError, match="big-endian"):
        read_released(path)


@pytest.mark.parametrize("second", ["b/data.pkl", "a/constants.pkl"])  # the latter is TorchScript's
def test_two_pickles_are_refused(tmp_path: Path, second: str) -> None:
    path = archive(tmp_path, state(tensor()))
    with zipfile.ZipFile(path, "a") as packed:
        packed.writestr(second, state(tensor()))
    with pytest.raises(ModelError, match="not one that"):
        read_released(path)


def test_any_cut_and_any_flipped_byte_ends_in_tensors_or_our_error(tmp_path: Path) -> None:
    path = archive(tmp_path, state(tensor()))
    sound = path.read_bytes()
    generator = random.Random(0)
    for cut in range(0, len(sound), 7):
        path.write_bytes(sound[:cut])
        with pytest.raises(ModelError):
            read_released(path)
    for _ in range(1000):
        altered = bytearray(sound)
        altered[generator.randrange(len(altered))] = generator.randrange(256)
        path.write_bytes(bytes(altered))
        try:
            read_released(path)
        except ModelError:
            continue


def test_a_configuration_that_grows_without_end_is_refused() -> None:
    laughs: Any = ["ha"]
    for _ in range(40):
        laughs = [laughs, laughs]
    with pytest.raises(ModelError, match="too deep or too large"):
        plain(laughs, "x")
    circle = StandIn()
    circle.state = {"_content": {"self": circle}}
    with pytest.raises(ModelError, match="too deep or too large"):
        plain(circle, "x")


def test_a_pickle_that_would_take_minutes_is_refused_before_torch_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's restricted reader takes microseconds an operation; a file can have millions."""
    monkeypatch.setattr("ovseg.models.torch_file._MAX_OPCODES", 5_000)
    monkeypatch.setattr(torch, "load", None)
    path = archive(tmp_path, with_more(b"](" + b"K\x01" * 6_000 + b"e"))
    with pytest.raises(ModelError, match="larger than a checkpoint's is"):
        read_released(path)
