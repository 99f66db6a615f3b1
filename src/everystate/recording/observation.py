"""What a framework module hands over about one call of one layer: names and arrays, no xarray.

Requirements on whoever builds an `Observation`:

* arrays are time-major, ``(time, batch, ...)``, detached from any graph, and of a floating
  dtype that NumPy has (half precision as float32, which is exact; say the real one in
  `precision`);
* ``observed["h"]`` is the framework's own output at every step, in *input* time order;
* a layer that runs backwards says ``reverse=True``; nothing is flipped beforehand;
* steps past a row's length may hold anything: they are masked here;
* gates may be shown, all or none. Verification then sees their states only, which do not tell
  i from g: whoever reads gates out of a kernel compares a few with the equations itself.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from array_api_compat import array_namespace, is_torch_array

from everystate import schema
from everystate.cells import GRU, LSTM, Cell, Weights
from everystate.cells.activations import Array
from everystate.errors import InputTypeError

Lengths = npt.NDArray[np.int64]

GATES: Final = {cell.__name__: cell.gates for cell in (LSTM, GRU)}
"""Gates by the name of the family, where the equations are the framework's own business."""


@dataclass(frozen=True, eq=False)
class Observation:
    """One sequence that one recurrent layer processed in one direction.

    Parameters
    ----------
    path : str
        Leaf path in the trace, with slashes: ``encoder/lstm/layer_1/backward``.
    observed : mapping
        What the framework showed, each of shape (time, batch, units): at least the output
        ``h``; every state for a custom cell or one stepped by hand.
    initial : mapping
        Each state before the first step, shape (batch, units).
    final : mapping
        Each state that the framework returned, shape (batch, units); may be empty.
    inputs : array, shape (time, batch, features), optional
        What the layer was given.
    cell, weights : Cell and Weights, optional
        The equations to replay with. None: only what was observed can be recorded.
    previous : mapping, optional
        For a cell stepped in a user's loop: each state that went into each step, shape
        (time, batch, units). None: the state after the step before.
    lengths : ndarray of int, shape (batch,), optional
        Valid steps of each row. None: all.
    skipped : ndarray of bool, shape (time, batch), optional
        Steps within a row's length that the layer skipped, each state carried over. None: none.
    reverse : bool
        Whether the layer reads the sequence backwards.
    precision : str
        The dtype the framework computed in; it decides the tolerance.
    attrs : mapping
        Attributes of the leaf: the framework's class and gate order.
    whole : int, optional
        Steps of the whole sequence, if this is a chunk of it: room for all of it is made with
        the first.
    hints : tuple of str
        What could explain a mismatch (``"dropout was active"``), for the error message.
    unshared : collection of str
        Which of the `observed` nobody else holds: they need not be copied.
    """

    path: str
    observed: Mapping[str, Array]
    initial: Mapping[str, Array]
    final: Mapping[str, Array] = field(default_factory=dict)
    inputs: Array | None = None
    cell: Cell | None = None
    weights: Weights | None = None
    previous: Mapping[str, Array] | None = None
    lengths: Lengths | None = None
    skipped: npt.NDArray[np.bool_] | None = None
    reverse: bool = False
    precision: str = "float32"
    attrs: Mapping[str, str | int | float] = field(default_factory=dict)
    whole: int | None = None
    hints: tuple[str, ...] = ()
    unshared: Collection[str] = ()

    @property
    def steps(self) -> int:
        """Number of time steps."""
        return int(next(iter(self.observed.values())).shape[0])

    @property
    def batch(self) -> int:
        """Number of rows."""
        return int(next(iter(self.observed.values())).shape[1])

    @property
    def variables(self) -> tuple[str, ...]:
        """Everything that can be recorded, the inputs apart."""
        replayable = self.equations[0].variables if self.replayable else ()
        return tuple(dict.fromkeys((*replayable, *self.observed)))

    @property
    def known_gates(self) -> tuple[str, ...]:
        """The gates of the cell, also of one that was recognised in a graph."""
        return self.cell.gates if self.cell else GATES.get(str(self.attrs.get("cell")), ())

    @property
    def gates(self) -> tuple[str, ...]:
        """The gates among `variables`."""
        return tuple(gate for gate in self.known_gates if gate in self.variables)

    @property
    def replayable(self) -> bool:
        """Whether there is all that a replay needs."""
        given = self.inputs is not None or self.shows_gates
        return self.cell is not None and self.weights is not None and given

    @property
    def shows_gates(self) -> bool:
        """Whether the framework showed every gate, so that none need be computed."""
        gates = self.cell.gates if self.cell else ()
        return bool(gates) and all(gate in self.observed for gate in gates)

    @property
    def equations(self) -> tuple[Cell, Weights]:
        """Cell and weights; only for an observation that has both."""
        assert self.cell is not None
        assert self.weights is not None
        return self.cell, self.weights

    @property
    def width(self) -> int:
        """Number of units of the cell; of ``c``, where ``h`` is projected."""
        if self.cell is not None and self.weights is not None:
            return self.cell.units(self.weights)
        return self.units(next(iter(self.observed)))

    def dim(self, variable: str) -> str:
        """Return the name of a variable's last dimension in the trace."""
        if variable == schema.INPUTS:
            return schema.FEATURE
        projected = self.weights is not None and self.weights.projection is not None
        if variable == schema.H and projected:
            return schema.PROJECTED_UNIT
        alike = self.units(variable) == self.width
        return schema.UNIT if alike else f"{variable}_{schema.UNIT}"

    def units(self, variable: str) -> int:
        """Return the number of units of a variable."""
        for shown in (self.observed, self.initial):
            if variable in shown:
                return int(shown[variable].shape[-1])
        cell, weights = self.equations
        return cell.units(weights)


def turn(a: Array, lengths: Lengths | None) -> Array:
    """Reverse the time axis of each row within its length; turning twice gives `a` again.

    Parameters
    ----------
    a : array, shape (time, batch, ...)
        What to turn.
    lengths : ndarray of int, shape (batch,), optional
        Valid steps of each row; steps past them stay where they are. None: all.
    """
    xp = array_namespace(a)
    if lengths is None:
        return xp.flip(a, axis=0)
    t = np.arange(a.shape[0])[:, None]
    return pick(a, np.where(t < lengths, lengths - 1 - t, t))


def pick(a: Array, source: npt.NDArray[np.int64]) -> Array:
    """Return the step ``source[t, row]`` of each row in place of step t.

    Parameters
    ----------
    a : array, shape (time, batch, ...)
        What to choose from.
    source : ndarray of int, shape (time, batch)
        Which step stands where.
    """
    rows = np.arange(a.shape[1])
    if is_torch_array(a):  # indices live where the array lives
        xp = array_namespace(a)
        return a[xp.asarray(source, device=a.device), xp.asarray(rows, device=a.device)]
    return a[source, rows]


def widened(a: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return half precision as float32, which is exact; anything else as it is.

    Examples
    --------
    >>> widened(np.zeros(3, np.float16)).dtype, widened(np.zeros(3)).dtype
    (dtype('float32'), dtype('float64'))
    """
    # bfloat16 is a dtype of ml_dtypes, which frameworks bring: known by its name alone.
    return a.astype(np.float32) if a.dtype.name in ("float16", "bfloat16") else a


def check_numbers(a: npt.NDArray[Any], what: str = "the input") -> None:
    """Raise `InputTypeError` unless an array holds real numbers, whole numbers or booleans.

    Parameters
    ----------
    a : ndarray
        What a model is called with.
    what : str
        What to call it in the message.
    """
    if a.dtype.kind not in "fiub":
        raise InputTypeError(
            f"{what} has dtype {a.dtype}, expected real numbers. Try x.astype('float32')."
        )


def as_numpy(a: Array) -> npt.NDArray[np.generic]:
    """Return an array of any framework as a NumPy array, without a copy where possible."""
    if is_torch_array(a):
        known = a.float() if str(a.dtype) == "torch.bfloat16" else a  # NumPy has no such numbers
        return np.asarray(known.detach().cpu())
    return np.asarray(a)
