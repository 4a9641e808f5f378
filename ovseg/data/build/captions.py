"""What every source yields, and the check each caption passes before it counts.

A chunk is a polars frame with the columns of `CHUNK_SCHEMA`: where the image is (`locator`: a URL,
or a path; for a member of a tar also its byte range) and what the caption says. Rows that cannot
be used are counted by reason in a `Tally`, never dropped in silence.
"""

import polars as pl

from ovseg.data.dataset.plan import Tally

CHUNK_SCHEMA = {
    "locator": pl.String,
    "caption": pl.String,
    "member_offset": pl.Int64,  # bytes into the tar that `locator` names; null outside of tars
    "member_size": pl.Int64,
}
LONGEST_CAPTION = 10_000  # bytes; web captions beyond are scraped pages, not captions
LONGEST_LOCATOR = 8_000  # bytes; what servers accept as a URL
_LINE_BREAKS = r"[\t\r\n\x0b\x0c\x{85}\x{2028}\x{2029}]"


def clean(rows: pl.DataFrame, tally: Tally) -> pl.DataFrame:
    """Rows of usable text with the columns of `CHUNK_SCHEMA`; the others are counted.

    `rows` has `locator` and `caption` as String or Binary (then decoded as UTF-8) and may have
    the member columns. Tabs and line breaks inside a caption become spaces, one for one.
    """
    text = pl.DataFrame({name: _decode(rows[name]) for name in ("locator", "caption")})
    if text["caption"].str.contains(_LINE_BREAKS).any():
        text = text.with_columns(pl.col("caption").str.replace_all(_LINE_BREAKS, " "))
    members = [
        rows[name] if name in rows.columns else pl.lit(None, dtype).alias(name)
        for name, dtype in list(CHUNK_SCHEMA.items())[2:]
    ]
    text = text.with_columns(pl.col("locator", "caption").str.strip_chars(), *members)
    text = text.with_columns(_reason(rows).alias("reason"))
    usable = text.filter(pl.col("reason").is_null())
    if len(usable) < len(text):
        for reason, count in text["reason"].drop_nulls().value_counts().iter_rows():
            tally.drop(reason, count)
    tally.read += len(usable)
    return usable.select(pl.col(name).cast(dtype) for name, dtype in CHUNK_SCHEMA.items())


def _decode(column: pl.Series) -> pl.Series:
    """Bytes as text; null where they are not UTF-8."""
    if column.dtype == pl.String:
        return column
    try:
        return column.cast(pl.String)
    except pl.exceptions.PolarsError:  # some value is not UTF-8: find out which
        return pl.Series(column.name, map(_decode_value, column), dtype=pl.String)


def _decode_value(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _reason(rows: pl.DataFrame) -> pl.Expr:
    """Why a row cannot be used; null where it can. The first reason that holds counts."""
    caption, locator = pl.col("caption"), pl.col("locator")
    # What was there and is gone after decoding was not UTF-8.
    undecoded = [
        pl.col(name).is_null() & rows[name].is_not_null() for name in ("caption", "locator")
    ]
    return (
        pl.when(undecoded[0] | undecoded[1])
        .then(pl.lit("not UTF-8"))
        .when(locator.is_null() | (locator == ""))
        .then(pl.lit("no image"))
        .when(caption.is_null() | (caption == ""))
        .then(pl.lit("no caption"))
        .when(caption.str.contains("\0", literal=True) | locator.str.contains("\0", literal=True))
        .then(pl.lit("NUL character"))
        .when(caption.str.len_bytes() > LONGEST_CAPTION)
        .then(pl.lit(f"caption over {LONGEST_CAPTION} bytes"))
        .when(locator.str.len_bytes() > LONGEST_LOCATOR)
        .then(pl.lit(f"address over {LONGEST_LOCATOR} bytes"))
    )
