"""How a layer's variables are cut into chunks, and chunks packed into files. Pure arithmetic.

- A *block* is the steps of one layer that are written together; all its variables share it.
  It is what a stopped writer loses, and what bounds its memory.
- A *shard* is one file: one block of one variable (or a part of its batch, where that is large).
- A *chunk*, a part of a shard, is what is compressed, checked and read together.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, prod

import xarray as xr

from everystate import schema

CHUNK_BYTES = 2**20
"""Small enough to fetch one step in a millisecond or two, large enough to compress well."""

SHARD_BYTES = 2**23
"""Large enough that 10^6 steps of 1024 float32 units make 500 files, not 4,000."""

MIN_STEPS = 16
"""A chunk spans at least these steps, however large the batch, so that a row can be read."""


@dataclass(frozen=True)
class Grid:
    """The grid of one variable: the shape of its chunks and of its shards.

    Attributes
    ----------
    chunks, shards : tuple of int
        One length for each dimension. A shard's are multiples of a chunk's.
    """

    chunks: tuple[int, ...]
    shards: tuple[int, ...]


def block_steps(variables: Mapping[str, xr.Variable]) -> int:
    """Return how many steps of a layer make a block: as many as its widest variable allows.

    Parameters
    ----------
    variables : mapping of str to xarray.Variable
        The layer's variables that have the dimension ``time``.

    Returns
    -------
    int
        A power of two.
    """
    widest = max(_bytes_at(variable, {schema.TIME}) for variable in variables.values())
    return max(MIN_STEPS, power_of_two(SHARD_BYTES // widest))


def grid(variable: xr.Variable, block: int) -> Grid:
    """Return the grid of a variable whose layer is written in blocks of `block` steps.

    Parameters
    ----------
    variable : xarray.Variable
        Any order of dimensions; ``time`` among them.
    block : int
        A power of two, from `block_steps`.

    Returns
    -------
    Grid
        Cut along ``time``, and along ``batch`` where a block would make too large a shard.
    """
    steps = variable.sizes[schema.TIME]
    chunk_steps = power_of_two(CHUNK_BYTES // _bytes_at(variable, {schema.TIME}))
    chunk_steps = max(1, min(max(chunk_steps, MIN_STEPS), block, steps))
    # A trace shorter than one block is one shard, just long enough.
    shard_steps = block if steps > block else ceil(max(steps, 1) / chunk_steps) * chunk_steps

    rows = max(variable.sizes.get(schema.BATCH, 1), 1)
    row = _bytes_at(variable, {schema.TIME, schema.BATCH})
    chunk_rows = max(1, min(CHUNK_BYTES // (chunk_steps * row), rows))
    chunks_fit = max(1, SHARD_BYTES // (shard_steps * row * chunk_rows))
    shard_rows = chunk_rows * min(chunks_fit, ceil(rows / chunk_rows))

    return Grid(
        chunks=_shape(variable, chunk_steps, chunk_rows),
        shards=_shape(variable, shard_steps, shard_rows),
    )


def _shape(variable: xr.Variable, steps: int, rows: int) -> tuple[int, ...]:
    cut = {schema.TIME: steps, schema.BATCH: rows}
    return tuple(cut.get(str(dim), max(size, 1)) for dim, size in variable.sizes.items())


def _bytes_at(variable: xr.Variable, fixed: set[str]) -> int:
    """Return the bytes of one place along the dimensions `fixed`, an empty one taken as 1."""
    sizes = (max(size, 1) for dim, size in variable.sizes.items() if dim not in fixed)
    return int(variable.dtype.itemsize * prod(sizes))


def power_of_two(number: int) -> int:
    """Return the largest power of two that is not above `number`, and at least 1."""
    return 1 << (max(number, 1).bit_length() - 1)
