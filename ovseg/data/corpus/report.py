"""The report of a data set."""

from ovseg.data.corpus.dataset import Dataset, Summary


def write_report(dataset: Dataset, summary: Summary) -> None:
    """Write `report.html`."""
    del dataset, summary
