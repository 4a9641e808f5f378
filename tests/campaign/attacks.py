"""Inputs made to harm, each of which must be refused, and what each may not have done.

The list is of what was once tried with success, and its neighbours; a function an attack, which
returns what was wrong, or nothing.
"""

import contextlib
import gzip
import io
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.campaign.report import Attempt, End, Report
from tests.campaign.seeds import MADE
from tests.campaign.worker import Reader, reader

Attack = Callable[[Path], str]
_SECONDS = 60


def attack(minutes: float, seed: int, only: Sequence[str] = ()) -> Report:
    """All of them, or those of some names, once; there is nothing to draw from a seed."""
    report, end = Report(), time.monotonic() + 60 * minutes
    with reader() as process:
        for name, (door, make) in FILES.items():
            if time.monotonic() < end and (not only or name in only):
                with TemporaryDirectory() as folder:
                    report.add(_let_in(process, name, door, make(Path(folder))))
    try_all(COMMANDS, only, end, report)
    return report


def try_all(attacks: Mapping[str, Attack], only: Sequence[str], end: float, report: Report) -> None:
    """Run those of some names, or all, each in a folder of its own."""
    for name, run in attacks.items():
        if time.monotonic() > end or (only and name not in only):
            continue
        with TemporaryDirectory() as folder:
            begun = time.monotonic()
            wrong = run(Path(folder))
            ended = End.UNEXPECTED if wrong else End.REFUSED
            report.add(Attempt(name, ended, wrong, 0, time.monotonic() - begun))
            report.half_written += [
                f"{name}: {path}" for path in Path(folder).rglob("*") if ".ovseg-" in path.name
            ]


def ovseg(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, without a traceback asked for."""
    quiet = {key: value for key, value in os.environ.items() if key != "OVSEG_DEBUG"}
    command = [sys.executable, "-m", "ovseg_cli", *arguments]
    with contextlib.suppress(subprocess.TimeoutExpired):
        return subprocess.run(
            command, cwd=cwd, env=quiet, capture_output=True, text=True, check=False,
            timeout=_SECONDS,
        )  # fmt: skip
    return subprocess.CompletedProcess(command, -1, "", f"no end after {_SECONDS} s")


def refusal(run: subprocess.CompletedProcess[str], *codes: int) -> str:
    """What is wrong with how a command refused, or nothing."""
    if run.returncode not in (codes or (1, 2)):
        return f"exit code {run.returncode}: {(run.stderr or run.stdout)[-300:]}"
    if "Traceback" in run.stderr + run.stdout:
        return f"a traceback: {run.stderr[-300:]}"
    return "" if run.stderr.strip() else "nothing said"


def _let_in(process: Reader, name: str, door: str, path: Path) -> Attempt:
    found = process.read(door, path, door)
    end = End.UNEXPECTED if found.end is End.ACCEPTED and "may pass" not in name else found.end
    what = found.what or ("accepted" if end is End.UNEXPECTED else "")
    return Attempt(name, end, what, found.memory, found.seconds, door)


def _file(name: str, content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    return make


def _png(width: int, height: int, bits: int, colour: int, data: bytes) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(data, 9)), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _tar_claiming(size: int) -> bytes:
    """A tar whose only member says it has `size` bytes, with a right checksum."""
    info = tarfile.TarInfo("0.jpg")
    head = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    head[124:136] = b"\x80" + size.to_bytes(11, "big")
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + bytes(1024)


def _long_name_bomb() -> bytes:
    """A GNU long name of 3 GB of zeros, 3 MB when packed."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 3 << 30
    stream = io.BytesIO()
    with gzip.open(stream, "wb", 9) as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        for _ in range(3 << 6):
            file.write(bytes(1 << 24))
    return stream.getvalue()


def _packed_document(folder: Path) -> Path:
    """1.4 GB of JSON in 1.4 MB."""
    path = folder / "a.json.gz"
    with gzip.open(path, "wb", 9) as file:
        file.write(b'{"images": [{"id":1,"file_name":"a","x":"')
        for _ in range(84):
            file.write(b"0" * (1 << 24))
    return path


def _instances(segmentation: object) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        from tests.campaign.doors import DOORS

        door = DOORS["COCO instances"]
        files = {**door.seeds(), **(door.around() if door.around else {})}
        for name, content in files.items():
            if name.endswith(".json"):
                document = json.loads(content)
                document["annotations"][0]["segmentation"] = segmentation
                content = json.dumps(document).encode()
            _file(name, content)(folder)
        return folder

    return make


def _exported(**changes: object) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        shutil.copytree(MADE / "onnx", folder / "onnx")
        path = folder / "onnx" / "export.json"
        document = json.loads(path.read_text())
        for name, value in changes.items():
            part, _, key = name.rpartition("__")
            (document[part] if part else document)[key] = value
        path.write_text(json.dumps(document))
        return folder / "onnx"

    return make


def _checkpoint_claiming(old: str, new: str) -> Callable[[Path], Path]:
    """A checkpoint whose recipe, in its header, says something else."""

    def make(folder: Path) -> Path:
        data = (MADE / "run" / "last.safetensors").read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        header = data[8 : 8 + length].decode().replace(old, new).encode()
        content = struct.pack("<Q", len(header)) + header + data[8 + length :]
        return _file("a.safetensors", content)(folder)

    return make


def _tokenizer(folder: Path) -> Path:
    """A pattern that takes time without end, and native code that panics at it."""
    from tests.campaign.doors import DOORS

    stored = json.loads(DOORS["tokenizer"].seeds()["a.json"])
    pattern = {"type": "Split", "pattern": {"Regex": "(a+)+$|(a|aa)+$"}, "behavior": "Isolated",
               "invert": False}  # fmt: skip
    document = json.loads(stored["files"]["tokenizer.json"])
    document["pre_tokenizer"] = pattern
    stored["files"]["tokenizer.json"] = json.dumps(document)
    return _file("a.json", json.dumps(stored).encode())(folder)


_DEEP = b"[" * 3000 + b"]" * 3000


FILES: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "a tar that claims 2^62 bytes": ("shard", _file("a.tar", _tar_claiming(2**62))),
    "a tar that claims 2^88 - 1 bytes": ("shard", _file("a.tar", _tar_claiming(2**88 - 1))),
    "a name of 3 GB in a packed tar": ("shard", _file("a.tar.gz", _long_name_bomb())),
    "a run of 10 in a mask of 10^12": (
        "COCO instances", _instances({"counts": [10], "size": [1_000_000, 1_000_000]})),
    "runs beyond the mask": (
        "COCO instances", _instances({"counts": [2**31, 2**31], "size": [20, 24]})),
    "a polygon to x = 30,000,001": (
        "COCO instances", _instances([[1, 1, 30_000_001, 1, 30_000_001, 9]])),
    "a polygon to x = 2^31": ("COCO instances", _instances([[1, 1, 2**31, 1, 2**31, 9]])),
    "a packed JSON of 1.4 GB": ("COCO captions", _packed_document),
    "a 1-bit PNG of 9,999 squared, which may pass": (
        "label PNG", _file("a.png", _png(9999, 9999, 1, 0, bytes(1251 * 9999)))),
    "a PNG of 2.5 gigapixels": ("image", _file("a.png", _png(50_000, 50_000, 8, 2, bytes(1000)))),
    "3,000 brackets of JSON": ("COCO captions", _file("a.json", _DEEP)),
    "3,000 brackets of TOML": ("recipe", _file("a.toml", b"a = " + _DEEP)),
    "5,000 digits of TOML": ("recipe", _file("a.toml", b"a = " + b"1" * 5000)),
    "a protocol whose sets are 3": ("protocol", _file("a.toml", b"sets = 3")),
    "a class file with a superscript": (
        "labelled folder", lambda folder: _superscript(folder)),
    "an export for images of 65,536": ("export folder", _exported(card__short_side=65_536)),
    "an export without its words": ("export folder", lambda folder: _without(folder, "text.onnx")),
    "a checkpoint that claims a width of 16,384": (
        "checkpoint", _checkpoint_claiming(r'\"width\":16', r'\"width\":16384')),
    "a pattern of a tokenizer without end": ("tokenizer", _tokenizer),
    "a train state at step 10^30": ("train state JSON", lambda folder: _step(folder, 10**30)),
}  # fmt: skip


def _superscript(folder: Path) -> Path:
    _file("classes.txt", "²: cat\n".encode())(folder)
    _file("labels/a.png", _png(8, 8, 8, 0, bytes(72)))(folder)
    _file("images/a.png", _png(8, 8, 8, 0, bytes(72)))(folder)
    return folder


def _without(folder: Path, name: str) -> Path:
    shutil.copytree(MADE / "onnx", folder / "onnx")
    (folder / "onnx" / name).unlink()
    return folder / "onnx"


def _step(folder: Path, step: int) -> Path:
    shutil.copytree(MADE / "run/checkpoints/step-00000004", folder / "step-00000004")
    path = folder / "step-00000004" / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "step": step}))
    return folder


def names_as_paths(folder: Path) -> str:
    """A data set that names a file outside itself: neither read nor written."""
    secret = folder / "secret.txt"
    secret.write_text("mine")
    shutil.copytree(MADE / "dataset", folder / "data")
    path = folder / "data" / "dataset.json"
    document = json.loads(path.read_text())
    document["sha256"] = {**document.get("sha256", {}), "../secret.txt": "0" * 64}
    path.write_text(json.dumps(document))
    (folder / "there").mkdir()
    for command in (["publish", "data", "there/copy"], ["inspect", "data"]):
        wrong = refusal(ovseg("build-dataset", *command, cwd=folder))
        if wrong:
            return f"{command[0]}: {wrong}"
    copied = [p for p in folder.rglob("secret.txt") if p != secret]
    return f"{copied} was written" if copied or secret.read_text() != "mine" else ""


def dot_files(folder: Path) -> str:
    """Files of others in the output folder, which begin with a dot: they stay."""
    names = (".eslintrc.json", ".prettierrc.toml", ".backup.tar", ".index.html")
    output = folder / "out"
    output.mkdir()
    for name in names:
        (output / name).write_text("mine")
    ovseg("build-dataset", str(MADE / "photos"), "--entities", "paper100", "--output", str(output))
    gone = [name for name in names if not (output / name).is_file()]
    return f"{gone} were deleted" if gone else ""


def markup_in_names(folder: Path) -> str:
    """Names of files and classes that a terminal or its library would act on."""
    for name in ("[/b].png", "\x1b]0;owned\x07.png", "[red]x.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(MADE / "scene.png", folder / name)
    run = ovseg("segment", str(folder), "--classes", "[red]cat,dog", "--output", str(folder / "o"))
    if run.returncode:
        return refusal(run, 0)
    said = run.stdout + run.stderr
    return "an escape was printed" if "\x1b]" in said or "\x07" in said else ""


def nul_in_output(folder: Path) -> str:
    """A name that no file can have: no shell passes it on, but another program can."""
    photo = str(MADE / "scene.png")
    arguments = ["ovseg", "segment", photo, "--classes", "cat", "--output", "a\0b"]
    code = (
        f"import runpy, sys; sys.argv = {arguments!r}; "
        "runpy.run_module('ovseg_cli', alter_sys=True, run_name='__main__')"
    )
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)
    return refusal(run)


def bucket_output(folder: Path) -> str:
    """An output in a bucket is written there or refused, and never a folder called `s3:`."""
    output = "s3://bucket/out"
    run = ovseg(
        "segment", str(MADE / "scene.png"), "--classes", "cat", "--output", output, cwd=folder
    )
    if (folder / "s3:").exists():
        return "a folder called s3: was made"
    return refusal(run)


def pickle(folder: Path) -> str:
    """A pickle that runs a command when it is read: wherever weights may come from."""
    mark = folder / "ran"

    class Harm:
        def __reduce__(self) -> tuple[Callable[..., int], tuple[str]]:
            return os.system, (f"touch {mark}",)

    import pickle as pickles

    import torch

    torch.save({"model": Harm()}, folder / "a.pth")
    (folder / "b.pth").write_bytes(pickles.dumps(Harm()))
    for command in (
        *(["models", "convert", name, "out.safetensors"] for name in ("a.pth", "b.pth")),
        *(["segment", str(MADE / "scene.png"), "--classes", "cat", "--model", name,
           "--output", "o"] for name in ("a.pth", "b.pth")),
    ):  # fmt: skip
        wrong = refusal(ovseg(*command, cwd=folder))
        if wrong or mark.exists():
            return f"{command}: {wrong or 'it ran'}"
    return ""


def interrupted(folder: Path) -> str:
    """Ctrl-C at many moments from its first import on: one line, 130, no traceback."""
    arguments = ["segment", str(MADE / "scene.png"), "--classes", "cat", "--output", "o"]
    command = [sys.executable, "-v", "-m", "ovseg_cli", *arguments]  # -v says what is imported
    for after in (0.05, 0.1, 0.3, 0.6, 1.0, 1.5):
        with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as run:
            assert run.stderr is not None
            for line in run.stderr:
                if "ovseg_cli" in line:
                    break
            threading.Timer(after, run.send_signal, [signal.SIGINT]).start()
            said = run.stderr.read()
            run.wait(_SECONDS)
        if "Traceback" in said:
            return f"after {after} s a traceback: {said[-200:]}"
        if run.returncode not in (0, 130):
            return f"after {after} s exit code {run.returncode}"
    return ""


def private_addresses(folder: Path) -> str:
    """Addresses that are not of the public internet, in every spelling."""
    from ovseg.data.guard import is_public

    private = (
        "127.0.0.1", "10.0.0.1", "169.254.169.254", "0.0.0.0", "192.0.0.8", "192.88.99.1",
        "100.64.0.1", "198.18.0.1", "224.0.0.1", "::1", "::ffff:10.0.0.1", "fec0::1", "fe80::1",
        "fc00::1", "3fff::1", "64:ff9b::a00:1", "2002:a00:1::", "2001:db8::1",
        "2600::200:5efe:10.0.0.1", "2600::5efe:127.0.0.1",
    )  # fmt: skip
    passed = [address for address in private if is_public(address)]
    return f"public: {passed}" if passed else ""


COMMANDS: dict[str, Attack] = {
    "names as paths": names_as_paths,
    "dot files of others": dot_files,
    "markup and escapes in names": markup_in_names,
    "NUL in a name": nul_in_output,
    "output in a bucket": bucket_output,
    "pickles": pickle,
    "Ctrl-C": interrupted,
    "private addresses": private_addresses,
}
