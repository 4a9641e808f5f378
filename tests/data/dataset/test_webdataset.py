"""Other people's tars: what is none says so, and members of one name belong together."""

from pathlib import Path

import pytest

from ovseg.data.dataset.webdataset import read_shard, split_name
from ovseg.errors import DataError


@pytest.mark.parametrize(
    ("name", "key", "kind"),
    [("a/b.JPG", "a/b", "jpg"), ("b.seg.png", "b", "seg.png"), ("a.b/c", "a.b/c", "")],
)
def test_names_are_cut_at_the_first_dot_of_their_last_part(name: str, key: str, kind: str) -> None:
    assert split_name(name) == (key, kind)


def test_a_stream_that_is_no_archive_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"not a tar" * 100)
    with pytest.raises(DataError, match=r"a\.tar cannot be read as a tar file"):
        list(read_shard(str(tmp_path / "a.tar")))
    with pytest.raises(DataError, match="does not exist"):
        list(read_shard(str(tmp_path / "b.tar")))
