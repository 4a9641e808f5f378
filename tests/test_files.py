"""Files and what is remembered of them."""

from pathlib import Path

import pytest

from ovseg.errors import UsageError
from ovseg.files import file_digest, local_path, remove_leftovers, replacing


def test_digests_are_remembered_until_the_file_changes(tmp_path: Path, own_cache: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    first = file_digest(file)
    (note,) = (own_cache / "digests").iterdir()
    assert note.read_text().startswith(first)
    assert file_digest(file) == first
    file.write_bytes(b"three")
    assert file_digest(file) != first
    note.write_text("damaged")
    assert len(file_digest(file)) == 64


def test_only_our_own_temporary_files_are_removed(tmp_path: Path) -> None:
    """What a kill leaves goes; whatever else begins with a dot stays, and so do links."""
    kept = [
        ".eslintrc.json",
        ".backup.tar",
        ".index.html",
        ".a.abcdefgh.json",
        ".other.ovseg-abcdefgh.json",
        ".a.ovseg-abcdefgh.txt",
        ".a.ovseg-abc.json",
        "a.ovseg-abcdefgh.json",
        "a.json",
    ]
    for name in kept:
        (tmp_path / name).write_text("mine")
    (tmp_path / ".a.ovseg-link0000.json").symlink_to(tmp_path / "a.json")
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "a.json") as temporary:
        left = tmp_path / temporary.name
        saved = left.name
        raise KeyboardInterrupt
    (tmp_path / saved).write_text("half")
    remove_leftovers(tmp_path, {"a.json"}.__contains__)
    here = {path.name for path in tmp_path.iterdir()}
    assert here == {*kept, ".a.ovseg-link0000.json"}


def test_a_temporary_file_of_a_long_name(tmp_path: Path) -> None:
    name = "é" * 124 + ".json"
    with replacing(tmp_path / name) as temporary:
        temporary.write_text("whole")
    assert (tmp_path / name).read_text() == "whole"


def test_what_is_still_written_is_no_leftover(tmp_path: Path) -> None:
    with replacing(tmp_path / "a.json") as temporary:
        temporary.write_text("whole")
        remove_leftovers(tmp_path)
    assert (tmp_path / "a.json").read_text() == "whole"


@pytest.mark.parametrize("name", ["s3://bucket/x", "gs:/bucket", "file:///tmp/x", "a\0b"])
def test_what_cannot_be_written_to(name: str) -> None:
    for given in (name, Path(name)):
        with pytest.raises(UsageError):
            local_path(given)


@pytest.mark.parametrize("name", ["out", "/tmp/a:b", "C:/out", "a b://c"])
def test_what_can_be_written_to(name: str) -> None:
    assert local_path(name) == Path(name)
