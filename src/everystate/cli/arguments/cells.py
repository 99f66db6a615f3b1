"""Columns of a table: as numbers for the model, as labels for the steps."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from everystate.errors import DataError
from everystate.recording.warning import warn

MISSING: Final = ("", "na", "n/a", "nan", "null", "none")
"""Texts that stand for a missing value, in small letters or capitals; they become NaN."""
LIKE_A_DATE: Final = re.compile(r"\s*\d{1,4}[./-]\d{1,2}[./-]\d{1,4}\b")
"""A day in some country's way; which number is the month cannot be known."""
DECIMAL_COMMA: Final = re.compile(r"\s*[+-]?\d+[,;][\d,;]*\d\s*")
"""A number such as 1,5; also where the comma was taken to separate cells: 5;2."""


@dataclass(frozen=True, eq=False)
class Column:
    """One column: numbers or datetimes as an array, or texts.

    Parameters
    ----------
    cells : ndarray or list of str
        Its values, one for each row.
    """

    cells: npt.NDArray[Any] | list[str]

    @property
    def numeric(self) -> bool:
        """Whether it holds numbers, by its type or by its first text."""
        if isinstance(self.cells, np.ndarray):
            return self.cells.dtype.kind in "fiub"
        return bool(self.cells) and is_number(self.cells[0])

    @property
    def dates(self) -> bool:
        """Whether it holds dates, by its type or by its first text."""
        if isinstance(self.cells, np.ndarray):
            return bool(self.cells.dtype.kind == "M")
        return bool(self.cells) and is_date(self.cells[0])


def is_number(cell: str) -> bool:
    """Whether a text is a number, or stands for a missing one."""
    return cell.strip().lower() in MISSING or _number(cell) is not None


def is_date(cell: str) -> bool:
    """Whether a text is a date, or date and time, of ISO 8601, and no number."""
    return _number(cell) is None and _date(cell) is not None


def numbers(path: Path, name: str, column: Column, hint: str) -> npt.NDArray[np.float64]:
    """Return a column as numbers; missing ones are NaN.

    Raises
    ------
    DataError
        If a cell is no number; the message says which, and ends with `hint`.
    """
    if isinstance(column.cells, np.ndarray):
        if column.cells.dtype.kind not in "fiub":
            raise DataError(
                f"{path}: column {name!r} holds {column.cells.dtype}, as a feature must be. {hint}"
            )
        return column.cells.astype(np.float64)
    texts = ["nan" if cell.strip().lower() in MISSING else cell for cell in column.cells]
    try:
        return np.array(texts, dtype=np.float64)
    except ValueError:
        row = next(k for k, cell in enumerate(texts) if _number(cell) is None)
        hint = _POINT if DECIMAL_COMMA.fullmatch(texts[row]) else hint
        raise DataError(
            f"{path}: column {name!r}, row {row + 1}: {texts[row]!r} is no number, as a feature "
            f"must be. {hint}"
        ) from None


_POINT: Final = "It has a decimal comma: write a point, 1.5, and nothing between the thousands."


def labels(path: Path, name: str, column: Column) -> npt.NDArray[Any]:
    """Return a column as labels of the steps: numbers, datetimes (UTC if they say so), or texts.

    Raises
    ------
    DataError
        If a row has none.
    """
    cells = column.cells
    if isinstance(cells, np.ndarray):
        missing = np.isnat(cells) if cells.dtype.kind == "M" else cells != cells
        _check_complete(path, name, missing)
        return cells
    _check_complete(path, name, np.array([not cell.strip() for cell in cells]))
    for read, dtype in ((_whole, "int64"), (_number, "float64"), (_date, "datetime64[us]")):
        found = [read(cell) for cell in cells]
        if None not in found:
            return np.array(found, dtype=dtype)
    odd = next(cell for cell in cells if not is_date(cell))
    if LIKE_A_DATE.match(odd):
        warn(
            f"{path}: column {name!r} labels the steps as text, not as time: {odd!r} is no date of "
            "ISO 8601. Write 2026-12-31T23:59, to select and draw by time."
        )
    return np.array(cells)


def warn_of_order(path: Path, name: str, steps: npt.NDArray[Any]) -> None:
    """Warn if numbers or datetimes that label the steps do not increase."""
    if steps.ndim != 1 or steps.dtype.kind not in "iufM":
        return
    back = steps[1:] <= steps[:-1]
    if back.any():
        row = int(back.argmax())
        warn(
            f"{path}: time is not increasing: {name!r} has {steps[row + 1]} in row {row + 2}, "
            f"after {steps[row]} ({int(back.sum())} such places). The steps are read in the "
            "file's order; sort the file if that is not the order in time."
        )


def _check_complete(path: Path, name: str, missing: npt.NDArray[np.bool_]) -> None:
    if missing.any():
        row = int(missing.argmax()) + 1
        raise DataError(
            f"{path}: column {name!r} labels the steps, but row {row} has no value. Fill it, or "
            "leave the labels out: --time none."
        )


def _whole(cell: str) -> int | None:
    try:
        return int(cell)
    except ValueError:
        return None


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _date(cell: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(cell.strip())
    except ValueError:
        return None
    return found if found.tzinfo is None else found.astimezone(UTC).replace(tzinfo=None)
