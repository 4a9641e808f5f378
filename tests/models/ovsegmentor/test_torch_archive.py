"""Archives of `torch.save`, sound and hostile."""

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
from ovseg.models.ovsegmentor.released import read_released, read_released_tensors  # noqa: E402
from ovseg.models.ovsegmentor.torch_archive import open_archive  # noqa: E402
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


def save(path: Path, tensors: dict[str, Any], **more: Any) -> Path:
    torch.save({"model": tensors, **more}, path)
    return path


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
    (found,) = read_released_tensors(path).values()
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
    path = save(tmp_path / "a.pth", collections.OrderedDict(tensors))
    found = read_released_tensors(path)
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        assert torch.equal(found[name], value), name
        assert found[name].is_contiguous()


def test_tensors_own_their_memory(tmp_path: Path) -> None:
    part = torch.zeros(3)
    found = read_released_tensors(
        save(tmp_path / "a.pth", {"img_encoder.a": part, "img_encoder.b": part})
    )
    found["img_encoder.a"] += 1
    assert found["img_encoder.b"].sum() == 0


def test_the_hand_made_archive_is_read(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "a.pth", state(tensor()), {"0": FLOATS})
    assert read_released_tensors(path)["img_encoder.pos_embed"].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (tensor(offset=whole(1)), "reaches beyond its storage"),
        (tensor(shape=tupled(whole(5))), "reaches beyond"),
        (tensor(strides=tupled(whole(2))), "reaches beyond"),
        (tensor(shape=tupled(whole(2**31 - 1)), strides=tupled(whole(0))), "reaches beyond"),
        (tensor(offset=whole(-1)), "no view of a storage"),
        (tensor(shape=tupled(whole(-1))), "no view"),
        (tensor(strides=tupled(whole(-1))), "no view"),
        (tensor(shape=tupled(b"\x88")), "no view"),  # True is no size
        (tensor(shape=tupled(whole(2), whole(2))), "impossible dimensions"),
        (tensor(shape=tupled(*[whole(1)] * 40), strides=tupled(*[whole(1)] * 40)), "impossible"),
        (tensor(source=whole(3)), "no view"),
        (tensor(source=storage(count=5)), "not the size it claims"),
        (tensor(source=storage(count=3)), "not the size it claims"),
        (tensor(source=storage(count=-4)), "impossible key or size"),
        (tensor(source=storage(key="7")), "storage 7 is missing"),
        (tensor(source=storage(key="../data.pkl")), "impossible key"),
        (tensor(source=storage(kind=named("torch", "QInt8Storage"))), "refers to torch.QInt8"),
        (tensor(source=storage(kind=short("FloatStorage"))), "no storage"),
        (tensor(source=storage(kind=named("omegaconf.nodes", "AnyNode"))), "no storage"),
        (tensor(source=storage(kind=named("os", "system"))), "refers to os.system"),
        (short("os.system") + b"Q", "damaged"),
        (tupled(short("module"), named("torch", "FloatStorage")) + b"Q", "damaged"),
        (tupled(short("module"), whole(1), whole(1), whole(1), whole(1)) + b"Q", "no storage"),
        (named("torch", "FloatStorage") + tupled(whole(9)) + b"R", "misuses torch.FloatStorage"),
        (named("torch._utils", "_rebuild_parameter") + tupled(whole(9)) + b"R", "misuses"),
        (named("torch._utils", "_rebuild_tensor_v2") + b")R", "damaged"),
        (named("torch._utils", "_rebuild_tensor_v3") + b")R", "refers to"),
        (named("omegaconf", "os.system") + b")R", "refers to omegaconf.os.system"),
        (named("omegaconfig", "X") + b")R", "refers to omegaconfig.X"),
        (named("numpy", "load") + b")R", "refers to numpy.load"),
    ],
)
def test_tensors_that_are_not_what_they_claim_are_refused(
    tmp_path: Path, value: bytes, sentence: str
) -> None:
    path = write_archive(tmp_path / "a.pth", state(value), {"0": FLOATS})
    with pytest.raises(ModelError, match=sentence) as caught:
        read_released_tensors(path)
    assert str(path) in str(caught.value)


def test_one_storage_named_over_and_over_is_refused(tmp_path: Path) -> None:
    numbers = b"\0" * (1 << 20)
    many = b"".join(
        short(f"img_encoder.{i}")
        + tensor(storage(count=1 << 18), shape=tupled(whole(1 << 18)))
        + b"s"
        for i in range(100)
    )
    pickled = program(b"}" + short("model") + b"}" + many + b"s")
    path = write_archive(tmp_path / "a.pth", pickled, {"0": numbers})
    with pytest.raises(ModelError, match="larger than the file"):
        read_released_tensors(path)


class Runs:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("place", ["model", "config", "optimizer", "metrics"])
def test_an_attack_in_any_part_of_the_file_is_refused(tmp_path: Path, place: str) -> None:
    marker = tmp_path / "ran"
    parts: dict[str, Any] = {"model": {"img_encoder.pos_embed": torch.zeros(3)}}
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


def test_the_old_format_is_named(tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    torch.save({"model": {}}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(ModelError, match=r"before 1\.6"):
        read_released(path)
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("pickle"), io.BytesIO())
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
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
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
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", state(tensor()))
        archive.writestr("a/byteorder", "big")
    with pytest.raises(ModelError, match="big-endian"):
        read_released(path)


def test_two_pickles_are_refused(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "a.pth", state(tensor()), {"0": FLOATS})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("b/data.pkl", state(tensor()))
    with pytest.raises(ModelError, match="not one that"):
        read_released(path)


def test_any_cut_and_any_flipped_byte_ends_in_tensors_or_our_error(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "a.pth", state(tensor()), {"0": FLOATS})
    sound = path.read_bytes()
    generator = random.Random(0)
    for cut in range(0, len(sound), 7):
        path.write_bytes(sound[:cut])
        with pytest.raises(ModelError):
            read_released_tensors(path)
    for _ in range(1000):
        altered = bytearray(sound)
        altered[generator.randrange(len(altered))] = generator.randrange(256)
        path.write_bytes(bytes(altered))
        try:
            read_released_tensors(path)
        except ModelError:
            continue


def test_names_are_only_expected_where_allowed(tmp_path: Path) -> None:
    path = write_archive(
        tmp_path / "a.pth", program(named("omegaconf.nodes", "AnyNode") + b")\x81")
    )
    with open_archive(path, lambda name: name.module == "omegaconf.nodes") as archive:
        assert str(archive.content.made_by) == "omegaconf.nodes.AnyNode"
    with pytest.raises(ModelError, match="refused"), open_archive(path, lambda _: False):
        pass
