"""What `ovseg segment` and `ovseg eval` do with videos."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ovseg.errors import UsageError
from ovseg_cli.console import print_note, say, say_json, stdout
from ovseg_cli.progress import counted, progress

if TYPE_CHECKING:
    from ovseg.data.class_list import ClassList
    from ovseg.evaluation.video.measure import AskedVideos, Followed
    from ovseg.inference.video.frames import SegmentedFrame, VideoSettings
    from ovseg.video_api import SegmentedVideo

AsVideo = Annotated[
    bool, typer.Option("--video", help="A folder's pictures are the frames of one video.")
]
FirstMask = Annotated[
    Path | None,
    typer.Option(
        help="Video: a label map of the first frame; its objects are followed, without words."
    ),
]
Every = Annotated[int, typer.Option(help="Video: only every so manieth frame.", min=1)]
Start = Annotated[float, typer.Option(help="Video: begin at this second.", min=0.0)]
End = Annotated[float | None, typer.Option(help="Video: end before this second.", min=0.0)]
Steadiness = Annotated[
    float | None,
    typer.Option(
        help="Video: how much other frames count, 0 (each frame alone) to 1; 0.9 by default.",
        min=0.0,
        max=1.0,
    ),
]
LookAhead = Annotated[
    int, typer.Option(help="Video: frames that follow count, too, so many.", min=0)
]
Features = Annotated[
    str,
    typer.Option(
        help="Video: compare frames by a DINO, as vit_small_patch16_224.dino, not by the model."
    ),
]
Tracks = Annotated[
    bool, typer.Option("--tracks", help="Video: show the number of each region in the picture.")
]


def is_asked_for(images: list[str], as_video: bool, first_mask: Path | None) -> bool:
    """Whether videos are to be segmented.

    Raises:
        UsageError: videos and pictures are asked for together.
    """
    from ovseg.data.video import is_video

    videos = [name for name in images if is_video(Path(name))]
    if videos and len(videos) < len(images) and not as_video:
        raise UsageError(f"{videos[0]} is a video, others are not: segment them apart")
    return bool(videos) or as_video or first_mask is not None


def refuse(options: dict[str, Any], kind: str) -> None:
    """Say that an option is of the other kind.

    Raises:
        UsageError: one has a value.
    """
    for name, value in options.items():
        if value not in (None, False, 0, ""):
            raise UsageError(f"{name} is for {kind}")


def segment_videos(
    videos: list[str],
    classes: "ClassList | None",
    model: str,
    device: str,
    *,
    as_json: bool,
    clip: tuple[int, float, float | None],
    **options: Any,
) -> None:
    """Segment videos one after the other."""
    from ovseg.data.video import Clip
    from ovseg.video_api import segment_video

    if not videos:
        raise UsageError("no video given: ovseg segment clip.mp4 --classes dog,grass")
    for video in videos:
        segmented = segment_video(video, classes, model, device, clip=Clip(*clip), **options)
        show_video(segmented, as_json)


def video_settings(steadiness: float | None, look_ahead: int, features: str) -> "VideoSettings":
    """How frames have to do with each other, as the options say."""
    from ovseg.inference.video.frames import VideoSettings

    share = VideoSettings.steadiness if steadiness is None else steadiness
    return VideoSettings(steadiness=share, look_ahead=look_ahead, features=features)


def show_video(segmented: "SegmentedVideo", as_json: bool) -> None:
    """Go through a video; say what was found and written."""
    shares: dict[str, float] = {}
    frames = 0
    with progress("segmenting", segmented.video.count) as bar:
        for found in segmented:
            frames += 1
            for each in found.result.shares:
                shares[each.name] = shares.get(each.name, 0.0) + each.share
            if as_json:
                say_json(_frame(found))
            bar.advance()
    if segmented.video.broken:
        print_note(f"{segmented.video.broken} broken frames were left out")
    if segmented.cuts:
        print_note(f"another scene begins at frame {', '.join(map(str, segmented.cuts))}")
    if as_json:
        return
    if segmented.files:
        for file in segmented.files:
            say(str(file))
    else:
        _print_shares(segmented.video.path, shares, frames)


def _frame(found: "SegmentedFrame") -> dict[str, Any]:
    return {
        "frame": found.frame.number,
        "seconds": round(found.frame.seconds, 4),
        "cut": found.cut,
        "classes": [
            {"label": each.label, "name": each.name, "share": round(each.share, 6)}
            for each in found.result.shares
        ],
        "tracks": [{"track": each.number, "label": each.label} for each in found.tracks.values()],
    }


def _print_shares(path: Path, shares: dict[str, float], frames: int) -> None:
    from rich.table import Table

    title = f"{path}, {frames} frames"
    table = Table("class", "share of pixels", title=title, title_justify="left")
    for name, total in sorted(shares.items(), key=lambda each: -each[1]):
        table.add_row(name, f"{total / frames:.1%}")
    stdout().print(table)


def evaluate_videos(
    data: Path,
    model: str,
    device: str,
    words: Path | None,
    first_mask: bool,
    settings: "VideoSettings",
    limit: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """`ovseg eval video`: the figures of every sequence and their means."""
    from ovseg.evaluation.video.measure import Followed
    from ovseg.video_api import evaluate_video

    if words is not None and first_mask:
        raise UsageError("--words and --first-mask are two measurements: give one at a time")
    with counted("frames") as on_progress:
        found = evaluate_video(
            data, model, device, words=words, first_mask=first_mask, settings=settings,
            limit=limit, on_progress=on_progress, **options,
        )  # fmt: skip
    if as_json:
        say_json(found.to_dict())
    elif isinstance(found, Followed):
        _print_followed(found)
    else:
        _print_asked(found)


def _print_followed(found: "Followed") -> None:
    from rich.table import Table

    table = Table("sequence", "object", "J", "F", "J&F")
    for each in found.objects:
        mean = (each.j + each.f) / 2
        table.add_row(each.sequence, str(each.object), *map(_percent, (each.j, each.f, mean)))
    table.add_row("mean", "", *map(_percent, (found.j, found.f, (found.j + found.f) / 2)))
    stdout().print(table)


def _print_asked(found: "AskedVideos") -> None:
    from rich.table import Table

    from ovseg.evaluation.video.measure import MEASURES

    heads = ("mIoU", "flicker", "VC8", "VC16", "steady by flow", "by features")
    table = Table("sequence", *heads)
    for each in found.sequences:
        table.add_row(each.sequence, *(_percent(getattr(each, name)) for name in MEASURES))
    table.add_row("mean", *(_percent(found.mean(name)) for name in MEASURES))
    stdout().print(table)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"
