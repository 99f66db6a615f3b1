"""How the rows of a shared trace are cut: a shard's rows are files of their own.

A file holds the rows of one shard, and of a long sequence a stretch of steps. So whoever writes
a shard writes whole files, and nobody else writes them.
"""

from dataclasses import dataclass

from everystate.storage.layout import CHUNK_BYTES, SHARD_BYTES


@dataclass(frozen=True)
class RowGrid:
    """The grid of one variable, (batch, time, unit) or (batch, unit).

    Parameters
    ----------
    chunks, shards : tuple of int
        Shape of what is read together, and of a file.
    """

    chunks: tuple[int, ...]
    shards: tuple[int, ...]


def shard_rows(step_bytes: int, steps: int, rows: int) -> int:
    """Return how many rows make a shard, so that its widest variable is about 8 MiB.

    Parameters
    ----------
    step_bytes : int
        Bytes of a step of the widest variable.
    steps, rows : int
        Steps of the longest row, and rows in all.

    Returns
    -------
    int
        A power of two, 1 where a row alone is as large.
    """
    fit = max(1, SHARD_BYTES // max(step_bytes * steps, 1))
    return min(1 << (fit.bit_length() - 1), 1 << max(rows - 1, 0).bit_length())


def row_grid(shape: tuple[int, ...], itemsize: int, rows: int) -> RowGrid:
    """Return the grid of a variable whose shards have `rows` rows."""
    *_, units = shape
    width = max(units, 1) * itemsize
    if len(shape) == 2:
        return RowGrid((rows, max(units, 1)), (rows, max(units, 1)))
    steps = max(shape[1], 1)
    chunk_steps = min(steps, max(1, CHUNK_BYTES // width))
    chunk_rows = min(rows, 1 << (max(1, CHUNK_BYTES // (width * chunk_steps)).bit_length() - 1))
    per_file = max(1, SHARD_BYTES // (width * chunk_steps * rows))
    files_steps = chunk_steps * min(per_file, -(-steps // chunk_steps))
    return RowGrid((chunk_rows, chunk_steps, units), (rows, files_steps, units))
