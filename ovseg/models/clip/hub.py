"""Files of the Hugging Face hub: cached, announced, verified, and explained where there is no net.

The hub's own client resumes broken transfers, shows their progress and keeps the cache
(`HF_HOME`). Here it is told which of several names to take, and its failures become one line.
"""

import hashlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from ovseg.errors import DownloadError, MissingDependencyError
from ovseg.files import cache_folder, sha256, write_text

_log = logging.getLogger(__name__)

WEIGHT_NAMES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""What open_clip calls the weights of a model, the form without pickle first."""

_SHA256_DIGITS = 64


def hub_file(repository: str, names: Sequence[str], by_hand: str) -> Path:
    """The first of `names` that a repository of the hub has, downloaded if none is here yet.

    Args:
        repository: `owner/name`.
        names: file names in order of preference.
        by_hand: what to do with a file fetched by other means; ends the offline message.

    Raises:
        DownloadError: the hub cannot be reached, has none of the files, or sent another one than
            it promised.
    """
    if (here := cached_file(repository, names)) is not None:
        return here
    if os.environ.get("OVSEG_OFFLINE") == "1":
        raise DownloadError(_offline(repository, names, by_hand, "OVSEG_OFFLINE is set"))
    return _download(repository, names, by_hand)


def cached_file(repository: str, names: Sequence[str]) -> Path | None:
    """The first of `names` that was downloaded before, or None."""
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:  # without the extra `torch` there is no use for these files
        return None
    found = (try_to_load_from_cache(repository, name) for name in names)
    return next((Path(file) for file in found if isinstance(file, str)), None)


def _download(repository: str, names: Sequence[str], by_hand: str) -> Path:
    try:
        from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
        from huggingface_hub.errors import EntryNotFoundError
    except ImportError as error:
        raise MissingDependencyError("huggingface_hub", "torch", "this model") from error

    for name in names:
        try:
            promised = get_hf_file_metadata(hf_hub_url(repository, name))
            size = "size unknown" if promised.size is None else f"{promised.size / 1e6:.0f} MB"
            _log.warning("downloading %s of %s from the hub (%s)", name, repository, size)
            path = Path(hf_hub_download(repository, name))
        except EntryNotFoundError:
            continue
        except Exception as error:  # the client's network errors share no base across versions
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise DownloadError(_offline(repository, names, by_hand, reason)) from error
        _verify(path, promised.etag)
        return path
    raise DownloadError(f"{repository} has none of {', '.join(names)} on the hub")


def file_digest(path: Path) -> str:
    """SHA-256 of a file; remembered for as long as its size and time of change stay."""
    path = path.resolve()
    status = path.stat()
    note = cache_folder() / "digests" / hashlib.sha256(str(path).encode()).hexdigest()[:32]
    stamp = f"{status.st_size} {status.st_mtime_ns}"
    try:
        digest, known = note.read_text(encoding="utf-8").strip().split(" ", 1)
        if known == stamp and len(digest) == _SHA256_DIGITS:
            return digest
    except (OSError, ValueError):
        pass  # no note, or not one of ours
    digest = sha256(path)
    try:
        write_text(note, f"{digest} {stamp}\n")
    except OSError as error:
        _log.info("digest of %s cannot be kept: %s", path, error)
    return digest


def _verify(path: Path, etag: str | None) -> None:
    """The hub's entity tag of a large file is its SHA-256; small files have a git hash."""
    if etag is None or len(etag) != _SHA256_DIGITS:
        return
    found = file_digest(path)
    if found != etag:
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        raise DownloadError(
            f"{path.name}: sha256 {found} came where {etag} was promised; deleted, try again"
        )


def _offline(repository: str, names: Sequence[str], by_hand: str, reason: str) -> str:
    return (
        f"cannot download {names[0]} of {repository} from the hub ({reason}): "
        f"fetch https://huggingface.co/{repository}/resolve/main/{names[0]} elsewhere, {by_hand}"
    )
