"""What `ovseg build-dataset` prints of data sets: counts, samples, faults."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from ovseg_cli import console

if TYPE_CHECKING:
    from rich.text import Text

    from ovseg.data.build.inspection import Inspection
    from ovseg.data.build.request import DatasetPlan
    from ovseg.data.build.tagging import TaggerAgreement
    from ovseg.data.dataset.folder import DatasetSummary


def print_plan(plan: "DatasetPlan", as_json: bool) -> None:
    """What a dry run found: counts, and the disk need."""
    if as_json:
        console.say_json(asdict(plan))
        return
    from ovseg.download import show_size

    out = console.stdout()
    out.print(
        f"{plan.captions_read:,} captions read, {plan.captions_matched:,} name one of "
        f"{len(plan.entity_captions)} entities"
    )
    _print_counts("captions set aside", plan.captions_dropped)
    _print_counts("captions by entity", plan.entity_captions, limit=20)
    out.print(f"disk need about {show_size(plan.disk_bytes)} if every image can be had")


def print_summary(summary: "DatasetSummary", as_json: bool) -> None:
    """What was built, and what of it is missing."""
    if as_json:
        console.say_json(asdict(summary) | {"complete": summary.complete})
        return
    from ovseg.download import show_size

    out = console.stdout()
    out.print(
        f"{summary.captions_read:,} captions read, {summary.captions_matched:,} name an entity"
    )
    _print_counts("captions set aside", summary.captions_dropped)
    _print_counts("captions by entity", summary.entity_captions, limit=20)
    _print_counts("pairs without an image", summary.failures)
    out.print(
        f"{summary.pairs:,} pairs in {summary.shards_complete} of {summary.shards} shards, "
        f"{show_size(summary.tar_bytes)}, in {summary.folder}",
        soft_wrap=True,
    )
    if summary.complete:
        out.print("complete; see report.html there")
    else:
        out.print("not complete: build the other parts and join them with merge")


def _print_counts(title: str, counts: dict[str, int], limit: int = 50) -> None:
    from rich.table import Table

    rows = sorted(((n, name) for name, n in counts.items() if n), key=lambda row: (-row[0], row[1]))
    if not rows:
        return
    table = Table("", "count", title=title, title_justify="left", box=None)
    table.columns[1].justify = "right"
    for count, name in rows[:limit]:
        table.add_row(name, f"{count:,}")
    if len(rows) > limit:
        table.add_row(f"and {len(rows) - limit} more", f"{sum(n for n, _ in rows[limit:]):,}")
    console.stdout().print(table)


def print_inspection(found: "Inspection", as_json: bool) -> None:
    """Counts, samples with their partners, and faults as warnings."""
    if as_json:
        console.say_json(asdict(found))
        return
    print_summary(found.summary, as_json=False)
    out = console.stdout()
    for sample in found.samples:
        out.print(f"\n{sample.key}  {sample.width}x{sample.height}")
        spans = [(span.start, span.end) for span in sample.entities]
        out.print(_marked(sample.caption, spans), soft_wrap=True)
        names = ", ".join(dict.fromkeys(span.name for span in sample.entities))
        out.print(f"  entities: {names}")
        for partner in sample.partners:
            line = f"  partner by {partner.entity}: {partner.key} {partner.caption}"
            out.print(line, soft_wrap=True)
    for fault in found.faults:
        console.print_warning(fault)
    if not found.faults and found.shards_checked:
        out.print(f"\nall checksums of {found.shards_checked} shards match")


def _marked(caption: str, spans: list[tuple[int, int]]) -> "Text":
    """A caption with its entities in bold."""
    from rich.text import Text

    marked, place = Text("  "), 0
    for start, end in spans:
        marked.append(console.printable(caption[place:start]))
        marked.append(console.printable(caption[start:end]), "bold")
        place = end
    return marked.append(console.printable(caption[place:]))


def print_agreement(measured: "TaggerAgreement", as_json: bool) -> None:
    """Shares of lexical matches that a tagger confirms, and the forms that fail most."""
    if as_json:
        console.say_json(asdict(measured))
        return
    out = console.stdout()
    out.print(
        f"{measured.captions:,} captions, {measured.captions_matched:,} with a match, "
        f"{measured.matches:,} matches"
    )
    out.print(f"lexical matches that are nouns: {measured.lexical:.2%}")
    out.print(f"pos matches that are nouns: {measured.pos:.2%}")
    out.print(f"captions that keep a match under the tagger: {measured.captions_kept:.2%}")
    worst = {row.form: row.found - row.nouns for row in measured.forms}
    _print_counts("matches that are no noun, by form", worst, limit=20)
