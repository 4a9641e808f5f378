"""Files and what is remembered of them."""

from pathlib import Path

from ovseg.files import file_digest


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
