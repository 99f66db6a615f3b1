"""Tables from ``.csv`` and ``.parquet`` files: names and columns.

CSV: UTF-8; separated by comma, semicolon or tab, whichever the first line has most of; lines
that begin with ``#`` and empty ones are left out. The first line is a header if one of its
cells is neither a number nor a date (ISO 8601); without one, columns are called 0, 1, 2, ...
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from everystate.cli.arguments.cells import Column, is_date, is_number
from everystate.errors import DataError, MissingDependencyError

SEPARATORS = ",;\t"


@dataclass(frozen=True, eq=False)
class Table:
    """Names and columns, in their order.

    Parameters
    ----------
    names : list of str
        The names; a column may have an empty one.
    columns : list of Column
        The columns.
    index : int, optional
        The column that labels the rows, by its kind or place, whatever its name.
    """

    names: list[str]
    columns: list[Column]
    index: int | None


def read_csv(path: Path) -> Table:
    """Read a table from text.

    Raises
    ------
    DataError
        If it is no text, holds no rows, or a row has another number of cells.
    """
    try:
        rows = list(_rows(path))
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise DataError(f"{path} cannot be read as text in UTF-8: {error}.") from error
    if not rows:
        raise DataError(f"{path} is empty; expected rows of numbers, one for each step.")
    (_, first), *_ = rows
    header = not all(is_number(cell) or is_date(cell) for cell in first)
    body = rows[1:] if header else rows
    if not body:
        raise DataError(f"{path} has a header but no rows; expected one for each step.")
    for line, cells in body:
        if len(cells) != len(first):
            raise DataError(
                f"{path}, line {line}: {len(cells)} cells, but {len(first)} in the first line. "
                "Quote cells that hold the separator; write numbers with a point, not a comma."
            )
    names = [c.strip() for c in first] if header else [str(k) for k in range(len(first))]
    columns = [Column(list(cells)) for cells in zip(*(row for _, row in body), strict=True)]
    index = 0 if not names[0] or columns[0].dates else None
    return Table(names, columns, index)


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and cells of each row."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = [(k, line) for k, line in enumerate(file, start=1)]
    lines = [(k, line) for k, line in lines if line.strip() and not line.startswith("#")]
    if not lines:
        return
    separator = max(SEPARATORS, key=lines[0][1].count)
    reader = csv.reader((line for _, line in lines), delimiter=separator, strict=True)
    for cells in reader:
        yield lines[reader.line_num - 1][0], cells


def read_parquet(path: Path) -> Table:
    """Read a table of Parquet.

    Raises
    ------
    DataError
        If it is none.
    MissingDependencyError
        If pyarrow is not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"{path}: reading .parquet needs pyarrow: pip install 'everystate[parquet]'. Or save "
            "the series as .csv or .npy."
        ) from error
    try:
        table = parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} is no readable Parquet file: {error}.") from error
    if not table.num_rows or not table.num_columns:
        raise DataError(f"{path} holds no rows; expected one for each step.")
    columns = [_column(column) for column in table.columns]
    # pandas writes an index without a name last, and calls it so.
    unnamed = [name.startswith("__index_level_") for name in table.column_names]
    found = [k for k, column in enumerate(columns) if unnamed[k] or column.dates]
    return Table(list(table.column_names), columns, found[0] if found else None)


def _column(values: Any) -> Column:
    """Return a column of Arrow: nulls as NaN or NaT, anything but numbers and dates as text."""
    from pyarrow import types

    kind = values.type
    if types.is_boolean(kind) or types.is_decimal(kind):
        values = values.cast("float64")
    elif types.is_date(kind):
        return Column(values.to_numpy().astype("datetime64[s]"))
    elif not (types.is_integer(kind) or types.is_floating(kind) or types.is_timestamp(kind)):
        return Column(["" if cell is None else str(cell) for cell in values.to_pylist()])
    return Column(np.asarray(values.to_numpy()))
