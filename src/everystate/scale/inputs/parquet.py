"""A Parquet data set: a row for each step, and a column that says of which sequence."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from everystate.errors import InputError, MissingDependencyError
from everystate.scale.inputs.source import Sizes, Values, as_sequence

KEYS = ("sequence", "sequence_id", "series_id", "id")
"""What the column that tells the sequences apart is called, if it is not said."""


class Parquet:
    """A Parquet file, or a folder of them, with a row for each step of each sequence.

    The steps of a sequence are taken in the order of the rows, the sequences in that of their
    first row. Only the column `sequence` is read beforehand; workers read the rows of theirs.

    Parameters
    ----------
    path : str or path-like
        A file, a folder, or a URL that fsspec knows.
    sequence : str, optional
        The column that says which sequence a row is of. Default: ``sequence``,
        ``sequence_id``, ``series_id`` or ``id``, whichever there is.
    columns : sequence of str, optional
        The features. Default: all columns of numbers but that one.

    Raises
    ------
    InputError
        If it cannot be read, a column is missing, or there are no rows.
    MissingDependencyError
        If pyarrow is not installed.

    Notes
    -----
    Rows of one sequence should be close together: of every file and row group whose statistics
    exclude a worker's sequences, nothing is read.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        sequence: str | None = None,
        columns: Sequence[str] | None = None,
    ) -> None:
        self._path = os.fspath(path)
        schema = _dataset(self._path).schema
        self._key = _key(self._path, schema.names, sequence)
        self._columns = _features(self._path, schema, self._key, columns)
        self._keys, self._steps = self._index()

    @property
    def count(self) -> int:
        """Number of sequences."""
        return len(self._keys)

    @property
    def cheap(self) -> bool:
        """The rows of each sequence are counted already."""
        return True

    def names(self) -> list[str]:
        """Return what the column `sequence` calls them."""
        return [str(key) for key in self._keys]

    def part(self, start: int, stop: int) -> "Parquet":
        """Return some of the sequences."""
        found = object.__new__(Parquet)
        some = {"_keys": self._keys[start:stop], "_steps": self._steps[start:stop]}
        found.__dict__ |= self.__dict__ | some
        return found

    def sizes(self) -> Sizes:
        """Return the size of each sequence."""
        steps = np.array(self._steps, dtype=np.int64)
        return Sizes(steps, np.full(len(steps), len(self._columns)))

    def read(self) -> list[Values | str]:
        """Return the sequences; an empty cell is NaN."""
        import pyarrow.compute

        mine = pyarrow.compute.field(self._key).isin(self._keys)
        try:
            table = _dataset(self._path).to_table([self._key, *self._columns], filter=mine)
        except (pyarrow.ArrowException, OSError) as error:
            return [f"{self._path}: {error}"] * self.count
        columns = [np.asarray(table[c].to_numpy(), dtype=np.float64) for c in self._columns]
        values = np.stack(columns, axis=1)
        order, bounds = _grouped(table[self._key].to_pylist(), self._keys)
        return [
            as_sequence(f"{self._path}, {self._key} {key!r}", values[order[a:b]])
            for key, a, b in zip(self._keys, bounds, bounds[1:], strict=False)
        ]

    def _index(self) -> tuple[list[Any], list[int]]:
        counted: dict[Any, int] = {}
        for batch in _dataset(self._path).to_batches([self._key]):
            for run in _runs(batch.column(0)):
                counted[run[0]] = counted.get(run[0], 0) + run[1]
        if None in counted:
            raise InputError(f"{self._path}: {counted[None]} rows have no {self._key!r}.")
        if not counted:
            raise InputError(f"{self._path}: has no rows; expected one for each step.")
        return list(counted), list(counted.values())


def _runs(column: Any) -> list[tuple[Any, int]]:
    """Return the values of a column, and how often each follows itself."""
    import pyarrow.compute

    ends = pyarrow.compute.run_end_encode(column)
    stops = ends.run_ends.to_pylist()
    return list(zip(ends.values.to_pylist(), np.diff([0, *stops]).tolist(), strict=True))


def _grouped(found: list[Any], keys: list[Any]) -> tuple[Values, list[int]]:
    """Return the rows of each key, in the order of `keys`, and where each begins."""
    place = {key: k for k, key in enumerate(keys)}
    groups = np.array([place[key] for key in found], dtype=np.int64)
    order = np.argsort(groups, kind="stable")
    bounds = np.searchsorted(groups[order], np.arange(len(keys) + 1))
    return order, bounds.tolist()


def _dataset(path: str) -> Any:
    try:
        import pyarrow
        from pyarrow import dataset
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"{path}: reading Parquet needs pyarrow: pip install 'everystate[parquet]'."
        ) from error
    try:
        if "://" not in path:
            return dataset.dataset(path, format="parquet")
        from fsspec.core import url_to_fs

        fs, inner = url_to_fs(path)
        return dataset.dataset(inner, filesystem=fs, format="parquet")
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: is no readable Parquet data set: {error}.") from error


def _key(path: str, names: Sequence[str], asked: str | None) -> str:
    found = [name for name in ((asked,) if asked is not None else KEYS) if name in names]
    if not found:
        what = "says of which sequence a row is" if asked is None else f"is called {asked!r}"
        raise InputError(
            f"{path}: no column {what}; there are {', '.join(names)}. Name it: "
            "es.scale.Parquet(path, sequence=NAME), on the command line --sequence NAME."
        )
    return found[0]


def _features(path: str, schema: Any, key: str, asked: Sequence[str] | None) -> list[str]:
    from pyarrow import types

    numeric = [
        field.name
        for field in schema
        if field.name != key and (types.is_integer(field.type) or types.is_floating(field.type))
    ]
    chosen = numeric if asked is None else list(asked)
    missing = [name for name in chosen if name not in numeric]
    if missing or not chosen:
        raise InputError(
            f"{path}: no columns of numbers {', '.join(missing)}; there are "
            f"{', '.join(numeric) or 'none'}."
        )
    return chosen
