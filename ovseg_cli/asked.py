"""What several commands ask for in the same way."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ovseg.errors import UsageError

if TYPE_CHECKING:
    from ovseg.data.class_list import ClassList

Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Examples = Annotated[
    list[str] | None,
    typer.Option(
        "--example",
        metavar="NAME=PHOTO:MASK",
        help="Show what a class looks like, as mug=photo.jpg:mask.png (what is not 0), or by a box "
        "in pixels as mug=photo.jpg:40,60,200,180; repeat it for more. No training.",
    ),
]


def class_list(
    classes: str | None, vocab: str | None, examples: Sequence[str] | None = None
) -> "ClassList":
    """Classes of `--classes` or `--vocab`, and behind them those that examples show.

    Raises:
        UsageError: both are given, or there is no class at all.
    """
    from ovseg.data.class_list import ClassList

    if classes is not None and vocab is not None:
        raise UsageError("give --classes or --vocab, not both")
    shown = dict.fromkeys(" ".join(each.partition("=")[0].split()) for each in examples or ())
    if vocab is not None:
        asked = ClassList.vocabulary(vocab)
    elif classes is not None:
        asked = ClassList.parse(classes)
    elif any(shown):
        return ClassList.of(list(shown))
    else:
        raise UsageError("no classes given: add --classes cat,dog or --vocab coco")
    known = {phrase.casefold() for phrase in asked.phrases}
    more = [(name,) for name in shown if name and name.casefold() not in known]
    return ClassList((*asked.synonyms, *more))
