"""Which sequences share a call of the model."""

from collections.abc import Iterator, Mapping
from itertools import groupby

import numpy as np

from everystate.scale.inputs.source import Values
from everystate.scale.options import Batching


def batches(lengths: Mapping[int, int], batching: Batching, most: int) -> Iterator[list[int]]:
    """Yield which sequences are recorded together: those of like length, the shortest first.

    Parameters
    ----------
    lengths : mapping of int to int
        Steps of each sequence, by its number.
    batching : Batching
        How many share a call, and whether their lengths may differ.
    most : int
        The most steps of all rows together, padding among them, that fit the memory.
    """
    order = sorted(lengths, key=lambda k: (lengths[k], k))
    groups = (
        [order] if batching.pad else [list(same) for _, same in groupby(order, key=lengths.get)]
    )
    for group in groups:
        batch: list[int] = []
        for k in group:
            full = len(batch) == batching.batch or (len(batch) + 1) * lengths[k] > most
            if batch and full:
                yield batch
                batch = []
            batch.append(k)
        yield batch


def stacked(sequences: list[Values], *, time_first: bool) -> Values:
    """Return sequences as one array, padded at their ends with zeros.

    Parameters
    ----------
    sequences : list of ndarray
        Each (steps, features).
    time_first : bool
        Whether the result is (time, batch, features), not (batch, time, features).
    """
    longest = max(map(len, sequences))
    padded = [
        np.pad(a, ((0, longest - len(a)), (0, 0))) if len(a) < longest else a for a in sequences
    ]
    return np.stack(padded, axis=1 if time_first else 0)
