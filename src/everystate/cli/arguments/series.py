"""DATA: a series from ``.npy``, ``.npz``, ``.csv`` or ``.parquet``.

What of a table is time, and what the model's features, is decided by these rules and told to
the user:

1. ``--time NAME`` names the column of the time; ``--time none`` says that there is none.
2. Else it is the column called time, timestamp, datetime or date, in small letters or capitals.
3. Else the first column, if it has no name (what pandas writes for its index) or holds dates;
   in a Parquet file, which knows the types, any first column of dates or pandas' own index.

A numeric column with another name is never taken for time, even if it increases: it may be a
feature. All other columns are features, in their order, unless ``--columns`` names some.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from everystate.cli.arguments.cells import labels, numbers, warn_of_order
from everystate.cli.arguments.data import Reading
from everystate.cli.arguments.selection import names
from everystate.cli.arguments.tables import Table, read_csv, read_parquet
from everystate.errors import DataError

TIME_NAMES: Final = ("time", "timestamp", "datetime", "date")
NO_TIME: Final = "none"


@dataclass(frozen=True, eq=False)
class Series:
    """What was read.

    Parameters
    ----------
    values : ndarray
        As the model reads it; (time, features) from a table.
    time : ndarray, shape (time,), optional
        Labels of the steps: numbers, datetimes or texts.
    columns : tuple of str
        Names of the features; empty if they have none.
    time_column : str, optional
        Where the labels come from.
    feeds : mapping of str to ndarray
        Each array by the name of the model's input that it is for, `values` the first of them;
        empty if the file holds but the series.
    """

    values: npt.NDArray[Any]
    time: npt.NDArray[Any] | None = None
    columns: tuple[str, ...] = ()
    time_column: str | None = None
    feeds: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    def describe(self) -> str:
        """Say in a few words what was read."""
        if self.feeds:
            return ", ".join(f"{n} {'x'.join(map(str, a.shape))}" for n, a in self.feeds.items())
        said = "x".join(map(str, self.values.shape))
        said += f" ({', '.join(self.columns)})" if self.columns else ""
        return f"{said}, time from {self.time_column!r}" if self.time_column is not None else said


def read_series(path: Path, reading: Reading, *, named: bool = False, lazy: bool = False) -> Series:
    """Read a file.

    Parameters
    ----------
    path : Path
        Its ending decides how.
    reading : Reading
        What of it is the series.
    named : bool
        Whether the model's inputs have names: an ``.npz`` file may then hold one array for each.
    lazy : bool
        Whether a ``.npy`` or ``.zarr`` array is left on the disk, to be read in parts.

    Raises
    ------
    DataError
        If it cannot be read, or what was asked for is not in it, or is no series.
    MissingDependencyError
        If it is ``.parquet`` and pyarrow is not installed.
    """
    kind = path.suffix.lower()
    if kind not in (*_READERS, ".zarr"):
        raise DataError(
            f"{path}: expected {', '.join((*_READERS, '.zarr'))}. Save the series as one of them, "
            "for example numpy.save('data.npy', x)."
        )
    if kind == ".zarr" or (lazy and kind == ".npy" and path.is_file()):
        return _from_disk(path, reading, lazy=lazy)
    if not path.is_file():
        found = sorted(p.name for p in path.parent.glob(f"*{kind}"))[:8]
        hint = f"Beside it there is {', '.join(found)}." if found else f"From: {Path.cwd()}."
        raise DataError(f"there is no file {path}. {hint}")
    if reading.array is not None and kind != ".npz":
        raise DataError(f"{path}: --array is for .npz files, which hold several arrays.")
    if named and kind == ".npz" and reading.array is None and reading.columns is None:
        return _feeds_or_series(path, reading)
    return _READERS[kind](path, reading)


def _feeds_or_series(path: Path, reading: Reading) -> Series:
    """Return every array but the time by its name, where there are several."""
    loaded = _loaded(path)
    if isinstance(loaded, np.ndarray):
        return _from_npz(path, reading)
    with loaded as file:
        time = _time_of_arrays(path, list(file), reading)
        feeds = {name: _member(path, file, name) for name in file if name != time}
        steps = None if time is None else _member(path, file, time)
    if len(feeds) < 2:
        return _from_npz(path, reading)
    if time is not None and steps is not None:
        warn_of_order(path, time, steps)
    return Series(next(iter(feeds.values())), steps, time_column=time, feeds=feeds)


def _from_disk(path: Path, reading: Reading, *, lazy: bool) -> Series:
    from everystate.streaming.source import opened

    if reading.time not in (None, NO_TIME):
        raise DataError(f"{path}: an array has no column {reading.time!r} of time; use .npz.")
    array = opened(path)
    return _from_array(path, array if lazy else np.asarray(array), reading)


def _from_npy(path: Path, reading: Reading) -> Series:
    if reading.time not in (None, NO_TIME):
        raise DataError(f"{path}: an .npy file has no column {reading.time!r} of time; use .npz.")
    return _from_array(path, _loaded(path), reading)


def _from_npz(path: Path, reading: Reading) -> Series:
    loaded = _loaded(path)
    if isinstance(loaded, np.ndarray):
        raise DataError(f"{path} holds one array, as .npy files do. Rename it to .npy.")
    with loaded as file:
        there = list(file)
        time = _time_of_arrays(path, there, reading)
        chosen = [reading.array] if reading.array is not None else [n for n in there if n != time]
        if len(chosen) != 1 or chosen[0] not in there:
            asked = "" if reading.array is None else f"no array {reading.array!r}; "
            raise DataError(
                f"{path}: {asked}there are {', '.join(there) or 'no arrays'}. Say which one is the "
                "series: --array NAME."
            )
        values = _member(path, file, chosen[0])
        steps = None if time is None else _member(path, file, time)
    if time is not None and steps is not None:
        warn_of_order(path, time, steps)
    series = _from_array(path, values, reading)
    return Series(series.values, steps, series.columns, time)


def _time_of_arrays(path: Path, there: list[str], reading: Reading) -> str | None:
    if reading.time == NO_TIME:
        return None
    if reading.time is not None:
        if reading.time not in there:
            raise DataError(f"{path}: no array {reading.time!r}; there are {', '.join(there)}.")
        return reading.time
    named = [name for name in there if name.lower() in TIME_NAMES and name != reading.array]
    return named[0] if named and len(there) > 1 else None


def _loaded(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except Exception as error:  # zipfile, zlib, struct, tokenize: NumPy lets all of them through
        raise DataError(
            f"{path} cannot be read by NumPy ({error}). Expected what numpy.save or numpy.savez "
            "write. Arrays of Python objects are never opened: that could run any code."
        ) from error


def _member(path: Path, file: Any, name: str) -> npt.NDArray[Any]:
    try:
        array: npt.NDArray[Any] = file[name]
    except Exception as error:
        raise DataError(f"{path}: the array {name!r} cannot be read ({error}).") from error
    return array


def _from_array(path: Path, values: npt.NDArray[Any], reading: Reading) -> Series:
    asked = names(reading.columns)
    if asked is None:
        return Series(values)
    count = values.shape[-1] if values.ndim > 1 else 0
    if not all(name.isdecimal() and int(name) < count for name in asked):
        raise DataError(
            f"{path}: --columns {reading.columns}: the array of shape {values.shape} has "
            f"{count} columns without names. Give numbers from 0."
        )
    return Series(values[..., [int(name) for name in asked]], columns=tuple(asked))


def _from_table(path: Path, table: Table, reading: Reading) -> Series:
    time = _time_column(path, table, reading)
    asked = names(reading.columns)
    if asked is None:
        chosen = [k for k in range(len(table.columns)) if k != time]
    else:
        chosen = [_find(path, table, name) for name in asked]
    if not chosen:
        raise DataError(f"{path}: there is no column but the time, {table.names[time or 0]!r}.")
    hint = _hint(table, chosen, reading)
    values = [numbers(path, table.names[k], table.columns[k], hint) for k in chosen]
    steps = None if time is None else labels(path, table.names[time], table.columns[time])
    if time is not None and steps is not None:
        warn_of_order(path, table.names[time], steps)
    return Series(
        values=np.stack(values, axis=1),
        time=steps,
        columns=tuple(table.names[k] for k in chosen),
        time_column=None if time is None else table.names[time],
    )


def _hint(table: Table, chosen: list[int], reading: Reading) -> str:
    """Say which columns could be chosen in place of one that holds no numbers."""
    numeric = [table.names[k] for k in chosen if table.columns[k].numeric]
    few = 0 < len(numeric) < min(len(chosen), 9)
    said = (
        f"Choose others: --columns {','.join(numeric)}" if few else "Choose others: --columns A,B"
    )
    return f"{said}." if reading.time is not None else f"{said}; or name the time: --time NAME."


def _time_column(path: Path, table: Table, reading: Reading) -> int | None:
    if reading.time == NO_TIME:
        return None
    if reading.time is not None:
        return _find(path, table, reading.time)
    named = [k for k, name in enumerate(table.names) if name.lower() in TIME_NAMES]
    return named[0] if named else table.index


def _find(path: Path, table: Table, name: str) -> int:
    places = [k for k, known in enumerate(table.names) if known == name]
    if not places and name.isdecimal() and int(name) < len(table.names):
        return int(name)
    if len(places) != 1:
        what = "several columns are called" if places else "there is no column"
        known = ", ".join(repr(n) for n in table.names[:20])
        raise DataError(
            f"{path}: {what} {name!r}; the columns are {known}. Choose by name, or by number "
            "from 0."
        )
    return places[0]


def _of(read: Callable[[Path], Table]) -> Callable[[Path, Reading], Series]:
    return lambda path, reading: _from_table(path, read(path), reading)


_READERS: Final[dict[str, Callable[[Path, Reading], Series]]] = {
    ".npy": _from_npy,
    ".npz": _from_npz,
    ".csv": _of(read_csv),
    ".tsv": _of(read_csv),
    ".parquet": _of(read_parquet),
}
