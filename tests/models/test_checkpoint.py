"""Our checkpoints: what goes in comes out, and nothing else is accepted."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from ovseg.config.load import load_recipe  # noqa: E402
from ovseg.errors import ModelError  # noqa: E402
from ovseg.models.checkpoint import (  # noqa: E402
    content_is_intact,
    load_state,
    read_info,
    write_checkpoint,
)
from ovseg.models.tensor_files import read_tensors  # noqa: E402
from ovseg.models.tokenizer import TokenizerFiles  # noqa: E402
from ovseg.version import __version__  # noqa: E402

TOKENIZER = TokenizerFiles("bert-base-uncased", "main", {"tokenizer.json": '{"é": "\\n"}'})


def state() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    return {
        "weight": torch.randn(3, 4, generator=generator),
        "half": torch.randn(5, generator=generator).to(torch.bfloat16),
        "count": torch.tensor(7),
        "empty": torch.zeros(0, 2),
    }


def write(path: Path, tensors: dict[str, Any] | None = None, **options: Any) -> Path:
    recipe = options.pop("recipe", load_recipe("smoke"))
    write_checkpoint(path, tensors or state(), recipe, **options)
    return path


def rewrite_header(path: Path, **changes: str | None) -> None:
    """Change metadata behind the library's back; None removes a key."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    for key, value in changes.items():
        header["__metadata__"].pop(f"ovseg.{key}")
        if value is not None:
            header["__metadata__"][f"ovseg.{key}"] = value
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.safetensors", tokenizer=TOKENIZER, description="made here", licence="MIT"
    )
    info = read_info(path)
    assert info.recipe == load_recipe("smoke")
    assert (info.model_class, info.version) == ("OVSegmentor", __version__)
    assert (info.description, info.licence, info.tokenizer) == ("made here", "MIT", TOKENIZER)
    assert info.tensors == {name: tuple(value.shape) for name, value in state().items()}
    assert info.parameters == 12 + 5 + 1
    found = read_tensors(path)
    assert all(torch.equal(found[name], value) for name, value in state().items())
    assert content_is_intact(path)


def test_metadata_needs_no_torch(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors")
    code = (
        "import sys; from pathlib import Path; from ovseg.models.description import describe_file;"
        f"print(describe_file(Path({str(path)!r})).parameters, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["18", "False"]


def test_views_and_tied_tensors_are_stored_as_they_read(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    tensors = {"a": base.T, "b": base, "c": base[1:], "d": torch.nn.Parameter(base)}
    found = read_tensors(write(tmp_path / "a.safetensors", tensors))
    assert all(torch.equal(found[name], value) for name, value in tensors.items())


def test_the_hash_is_of_what_decides_an_embedding(tmp_path: Path) -> None:
    def digest(**options: Any) -> str:
        return read_info(write(tmp_path / "x.safetensors", **options)).content_hash

    plain = digest()
    assert plain == digest(description="other words", licence="MIT")
    assert plain == digest(recipe=load_recipe("smoke", ["train.seed=5"]))
    assert plain != digest(recipe=load_recipe("smoke", ["model.image.heads=2"]))
    assert plain != digest(tokenizer=TOKENIZER)
    assert plain != digest(model_class="Other")
    assert plain != digest(tensors=state() | {"count": torch.tensor(8)})
    assert plain != digest(tensors={f"{name}_": value for name, value in state().items()})


def test_a_changed_number_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    assert not content_is_intact(path)


class Small(torch.nn.Module):
    """Two layers."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.first = torch.nn.Linear(2, width)
        self.second = torch.nn.Linear(width, 1)


def test_a_state_that_fits_is_loaded() -> None:
    source, destination = Small(), Small()
    load_state(destination, source.state_dict(), "x")
    assert torch.equal(source.first.weight, destination.first.weight)


@pytest.mark.parametrize(
    "prefix", ["_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module."]
)
def test_prefixes_of_wrapped_models_are_taken_off(tmp_path: Path, prefix: str) -> None:
    source, destination = Small(), Small()
    wrapped = {f"{prefix}{name}": value for name, value in source.state_dict().items()}
    path = write(tmp_path / "a.safetensors", wrapped)
    load_state(destination, read_tensors(path), "x")
    assert torch.equal(source.first.weight, destination.first.weight)


def test_a_compiled_part_keeps_no_prefix() -> None:
    source, destination = Small(), Small()
    state = source.state_dict()
    state["first._orig_mod.weight"] = state.pop("first.weight")
    load_state(destination, state, "x")
    assert torch.equal(source.first.weight, destination.first.weight)


def test_a_name_given_with_and_without_prefix_is_refused() -> None:
    tensors = Small().state_dict()
    with pytest.raises(ModelError, match=r"1 tensor unexpected: module\.first\.bias"):
        load_state(Small(), tensors | {"module.first.bias": torch.zeros(3)}, "x")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, number: float) -> None:
    module = Small()
    tensors = Small().state_dict()
    tensors["second.weight"][0, 1] = number
    path = write(tmp_path / "a.safetensors", tensors)
    with pytest.raises(ModelError) as caught:
        load_state(module, read_tensors(path), str(path))
    assert str(caught.value) == (
        f"{path}: 1 tensor with NaN or infinity: second.weight: these weights are of no use; "
        "take a checkpoint from before"
    )
    assert all(torch.isfinite(value).all() for value in module.state_dict().values())


def test_large_numbers_are_numbers() -> None:
    tensors = Small().state_dict()
    tensors["first.weight"][:] = 3e38
    load_state(Small(), tensors, "x")


def test_missing_unexpected_and_misshapen_tensors_are_named() -> None:
    module = Small()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    tensors = Small(width=4).state_dict()
    tensors.pop("second.bias")
    tensors |= {f"extra.{i}": torch.zeros(1) for i in range(6)}
    with pytest.raises(ModelError) as caught:
        load_state(module, tensors, "x.safetensors")
    assert str(caught.value) == (
        "x.safetensors: does not fit Small: 1 tensor missing: second.bias; "
        "6 tensors unexpected: extra.0, extra.1, extra.2, extra.3 and 2 more; "
        "3 tensors of another shape: first.weight ([4, 2] in the file, [3, 2] in the model), "
        "first.bias ([4] in the file, [3] in the model), "
        "second.weight ([1, 4] in the file, [1, 3] in the model)"
    )
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_a_truncated_file_is_refused_at_every_length(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors")
    whole = path.read_bytes()
    for length in [0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:length])
        for read in (read_info, read_tensors, content_is_intact):
            with pytest.raises(ModelError, match=r"a\.safetensors: no safetensors file, or one"):
                read(path)


@pytest.mark.parametrize("content", [b"hello", b"PK\x03\x04" * 9, b"\xff" * 64, b"\0" * 64])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="no safetensors file"):
        read_info(path)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"x\.safetensors: cannot be read: no such file"):
        read_info(tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match="cannot be read"):
        read_info(tmp_path)


def test_safetensors_of_others_are_no_checkpoints(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "a.safetensors"
    save_file(state(), path)
    with pytest.raises(ModelError, match="no checkpoint of ovseg"):
        read_info(path)
    assert len(read_tensors(path)) == 4


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"format": "2", "version": "9.9"}, r"written by ovseg 9\.9 in a newer format"),
        ({"recipe": "{"}, "its recipe is damaged"),
        ({"recipe": "[" * 100_000}, "its recipe is damaged"),
        ({"recipe": "[]"}, "its recipe is damaged"),
        ({"recipe": '{"model": {"wide": 3}}'}, r"model\.wide = 3: unknown key"),
        ({"recipe": '{"model": {"embedding_width": 1e12}}'}, "must be a whole number"),
        ({"tokenizer": "{"}, "its tokenizer is damaged"),
        ({"tokenizer": '{"name": "x"}'}, "its tokenizer is damaged"),
        (
            {"tokenizer": '{"name": "x", "revision": "", "files": {"../../x.json": ""}}'},
            "refused: .*have no place in a tokenizer",
        ),
        (
            {"tokenizer": '{"name": "x", "revision": "", "files": {"tokenization_x.py": ""}}'},
            "refused",
        ),
        ({"recipe": None}, "no checkpoint of ovseg"),
    ],
)
def test_metadata_is_not_trusted(
    tmp_path: Path, changes: dict[str, str | None], sentence: str
) -> None:
    path = write(tmp_path / "a.safetensors")
    rewrite_header(path, **changes)
    with pytest.raises(ModelError, match=sentence):
        read_info(path)


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.safetensors")
    before = path.read_bytes()

    def full(*arguments: Any) -> None:
        Path(arguments[1]).write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(ModelError, match=r"a\.safetensors: cannot be written: No space left"):
        write(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_file()] == ["a.safetensors"]


def test_a_file_without_a_key_of_ours_is_described(tmp_path: Path) -> None:
    """`models info` on a checkpoint that lacks what the hash is made of."""
    from ovseg.models.description import describe_file

    for key in ("tokenizer", "model_class", "content_hash"):
        path = write(tmp_path / "a.safetensors")
        rewrite_header(path, **{key: None})
        assert describe_file(path).intact is False
    path = write(tmp_path / "a.safetensors")
    rewrite_header(path, recipe="{}")
    assert describe_file(path).intact is False


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (
            {
                f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
                for i in range(100_001)
            },
            "lists more than any model has",
        ),
        (
            {"t": {"dtype": "F32", "shape": [1] * 8_000_001, "data_offsets": [0, 4]}},
            "lists more than any model has",
        ),
        ({"t": {"dtype": "F32", "shape": [2**62], "data_offsets": [0, 4]}}, "no safetensors file"),
        ({"t": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}, "no safetensors file"),
    ],
)
def test_headers_that_claim_too_much(tmp_path: Path, header: dict, reason: str) -> None:
    path = tmp_path / "a.safetensors"
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"1234")
    with pytest.raises(ModelError, match=reason):
        read_tensors(path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.safetensors")
    with pytest.raises(ModelError, match="a pipe"):
        read_info(tmp_path / "a.safetensors")


def test_a_file_too_large_for_its_disk_is_one_sentence(tmp_path: Path) -> None:
    """safetensors has an error of its own for it."""
    code = (
        "import resource, sys, torch; from pathlib import Path\n"
        "from ovseg.config.load import load_recipe; from ovseg.errors import ModelError\n"
        "from ovseg.models.checkpoint import write_checkpoint\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n"
        "    write_checkpoint(Path(sys.argv[1]), {'a': torch.zeros(10**6)}, load_recipe('smoke'))\n"
        "except ModelError as error: print(error)"
    )
    path = tmp_path / "a.safetensors"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert done.stdout.startswith(f"{path}: cannot be written: "), done.stderr
    assert list(tmp_path.glob("*.safetensors")) == []
