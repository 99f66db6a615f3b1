"""What every cell is: names of its states and gates, and the equations of one stretch of steps.

A cell is pure: no framework, no loop over frameworks, no I/O. Its equations are written
once for NumPy, PyTorch and JAX arrays, and split where the cost lies:

* `Cell.from_input` and `Cell.from_state` are the matrix products, for all steps at once;
* `Cell.evolve` is the rest: element by element, with a scan over time only for what no
  framework shows (the LSTM's ``c``).

Arrays are time-major: ``(time, batch, ...)``.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Self

from array_api_compat import is_numpy_array

from everystate.cells.activations import Activation, Array
from everystate.cells.scan import clip
from everystate.errors import WeightsError

States = Mapping[str, Array]
"""State or gate arrays by name."""


@dataclass(frozen=True, eq=False)
class Weights:
    """A cell's weights in canonical form: gates stacked along the rows, in `Cell.gates` order.

    Parameters
    ----------
    W : array, shape (gates * units, features)
        Input weights.
    R : array, shape (gates * units, h units)
        Recurrent weights.
    b : array, shape (gates * units,), optional
        Bias on the input side; where a framework keeps one bias, or two that are only ever
        added, all of it. None means zero.
    b_R : array, shape (gates * units,), optional
        Bias on the recurrent side, kept apart only where the equations need it apart (the
        candidate of a GRU that resets after the product). None means zero.
    peephole : array, shape (3, units), optional
        The LSTM's diagonal weights from ``c`` to the gates i, f, o, in this order.
    projection : array, shape (projected units, units), optional
        The LSTM's output projection.
    """

    W: Array
    R: Array
    b: Array | None = None
    b_R: Array | None = None
    peephole: Array | None = None
    projection: Array | None = None

    def items(self) -> list[tuple[str, Array]]:
        """Return the names and arrays that are there, in the order of the fields."""
        named = [(f.name, getattr(self, f.name)) for f in fields(self)]
        return [(name, array) for name, array in named if array is not None]


@dataclass(frozen=True)
class Cell(ABC):
    """One cell family; its fields are the variants a framework may choose.

    To add a family, subclass this in a file of its own and give `states`, `gates` and
    `evolve`. ``everystate.testing`` holds the contract as tests.
    """

    states: ClassVar[tuple[str, ...]]
    """What is carried to the next step; ``h`` comes first and is what the layer puts out."""
    gates: ClassVar[tuple[str, ...]]
    """What a step computes on the way, in the canonical order of the weights' rows."""
    memory: ClassVar[tuple[str, ...]] = ()
    """The states that a replay must scan for, because the layer's output does not show them."""

    def __init_subclass__(cls) -> None:
        """Take no `gates_at` of equations that a class further down replaces in part."""
        super().__init_subclass__()
        names = ("gates_at", "evolve", "from_input", "from_state")
        ahead, *others = ([n in vars(c) for c in cls.__mro__].index(True) for n in names)
        if min(others) < ahead:
            cls.gates_at = Cell.gates_at  # type: ignore[method-assign]

    @property
    def variables(self) -> tuple[str, ...]:
        """States, then gates: all that a step computes."""
        return (*self.states, *self.gates)

    @property
    def unit_wise(self) -> bool:
        """Whether some units can be evolved without the others, given the matrix products."""
        return True

    def units(self, w: Weights) -> int:
        """Return the number of units (of ``c``, where ``h`` is projected)."""
        return int(w.W.shape[0]) // self.blocks

    @property
    def blocks(self) -> int:
        """How many blocks of rows `Weights.W` has: one a gate, one in all without gates."""
        return max(1, len(self.gates))

    def check(self, w: Weights, path: str = "weights") -> None:
        """Raise `WeightsError` if the weights' shapes do not fit this cell.

        Parameters
        ----------
        w : Weights
            What to check.
        path : str
            The layer's path, for the message.
        """
        if len(w.W.shape) != 2:
            raise WeightsError(
                f"{path}: W has shape {tuple(w.W.shape)}, expected (gates * units, features)."
            )
        rows, units = int(w.W.shape[0]), self.units(w)
        if rows % self.blocks:
            raise WeightsError(
                f"{path}: W has {rows} rows, not a multiple of the {self.blocks} gates of "
                f"{type(self).__name__}. Is this layer of another family?"
            )
        h_units = units if w.projection is None else int(w.projection.shape[0])
        expected = {
            "W": tuple(w.W.shape),
            "R": (rows, h_units),
            "b": (rows,),
            "b_R": (rows,),
            "peephole": (3, units),
            "projection": (h_units, units),
        }
        for name, array in w.items():
            if tuple(array.shape) != expected[name]:
                raise WeightsError(
                    f"{path}: {name} has shape {tuple(array.shape)}, "
                    f"expected {expected[name]} for {units} units."
                )

    def take_units(self, w: Weights, units: Array) -> Weights:
        """Return the weights of some units only (their rows; columns stay whole)."""
        peephole = None if w.peephole is None else w.peephole[:, units]
        return replace(self.by_block(w, lambda blocks: blocks[:, units]), peephole=peephole)

    def by_block(self, w: Weights, change: Callable[[Array], Array]) -> Weights:
        """Return the weights with their rows changed, given to `change` as (blocks, units, ...)."""

        def rows(a: Array | None) -> Array | None:
            if a is None:
                return None
            blocks = a.reshape((self.blocks, -1, *a.shape[1:]))
            return change(blocks).reshape((-1, *a.shape[1:]))

        return replace(w, W=rows(w.W), R=rows(w.R), b=rows(w.b), b_R=rows(w.b_R))

    def from_input(self, w: Weights, x: Array) -> Array:
        """Return ``W x + b``: what the input gives to the gates, at all steps at once.

        Parameters
        ----------
        w : Weights
            The cell's weights.
        x : array, shape (..., features)
            The input.

        Returns
        -------
        array, shape (..., gates * units)
        """
        a = product(x, w.W.T)
        if w.b is not None:
            a += w.b
        return a

    def from_state(self, w: Weights, h: Array) -> Array:
        """Return ``R h + b_R``: what the state before each step gives to the gates.

        Parameters
        ----------
        w : Weights
            The cell's weights.
        h : array, shape (..., h units)
            The hidden state *before* each step.

        Returns
        -------
        array, shape (..., gates * units)
        """
        a = product(h, w.R.T)
        if w.b_R is not None:
            a += w.b_R
        return a

    @abstractmethod
    def evolve(self, w: Weights, a_x: Array, a_h: Array, before: States) -> dict[str, Array]:
        """Return every state and gate of a stretch of steps.

        Parameters
        ----------
        w : Weights
            The cell's weights.
        a_x, a_h : array, shape (time, batch, gates * units)
            `from_input` of the inputs and `from_state` of the ``h`` before each step.
        before : mapping
            ``h``: the hidden state before *each* step, shape (time, batch, units); every
            state in `memory`: its value before the *first* step, shape (batch, units).

        Returns
        -------
        dict
            `variables` by name, each of shape (time, batch, units), after each step.
        """

    def gates_at(self, w: Weights, a: Array, out: States | None = None) -> dict[str, Array] | None:
        """Return every gate of a stretch of steps, if the products' sum is enough; else None.

        Parameters
        ----------
        w : Weights
            The cell's weights.
        a : array, shape (time, batch, gates * units)
            The sum of `from_input` and `from_state`, as `evolve` takes them.
        out : mapping, optional
            Where to put each gate, of NumPy arrays. None: fresh memory.

        Returns
        -------
        dict, optional
            `gates` by name, each of shape (time, batch, units). A cell with a memory that
            returns them is evolved by `remember` and `expose`, and its gates are computed in
            any order.
        """
        return None

    def remember(
        self, w: Weights, gates: States, before: States, out: States | None = None
    ) -> dict[str, Array]:
        """Return every state in `memory`, of a stretch of steps whose gates are known.

        Parameters
        ----------
        w : Weights
            The cell's weights.
        gates : mapping
            Each gate, shape (time, batch, units).
        before : mapping
            As `evolve` takes it.
        out : mapping, optional
            Where to put each, of NumPy arrays. None: fresh memory.

        Returns
        -------
        dict
            Each of shape (time, batch, units); empty of a cell without a memory.
        """
        return {}

    def expose(self, w: Weights, gates: States, states: States, out: Array | None = None) -> Array:
        """Return ``h`` of a stretch of steps whose gates and `memory` are known.

        Parameters
        ----------
        w : Weights
            The cell's weights; of these only the projection is needed.
        gates : mapping
            Each gate, shape (time, batch, units).
        states : mapping
            Every state in `memory` *after* each step; of a cell without a memory ``h`` *before*
            each. Shape (time, batch, units).
        out : ndarray, shape (time, batch, units), optional
            Memory that may be used for it, of NumPy arrays.

        Returns
        -------
        array, shape (time, batch, h units)
        """
        raise NotImplementedError(f"{type(self).__name__} has no gates to go by.")

    def from_gates(self, w: Weights, gates: States, before: States) -> dict[str, Array]:
        """Return every state of a stretch of steps whose gates are known.

        Parameters
        ----------
        w : Weights
            The cell's weights; of these only the projection is needed.
        gates : mapping
            Each gate, shape (time, batch, units).
        before : mapping
            As `evolve` takes it.

        Returns
        -------
        dict
            `states` by name, each of shape (time, batch, units).
        """
        memory = self.remember(w, gates, before)
        return {"h": self.expose(w, gates, memory or before), **memory}

    def step(self, w: Weights, a_x: Array, state: States) -> dict[str, Array]:
        """Return every state and gate after one step.

        Parameters
        ----------
        w : Weights
            The cell's weights.
        a_x : array, shape (batch, gates * units)
            `from_input` of this step's input.
        state : mapping
            Every state before the step, each of shape (batch, units).

        Returns
        -------
        dict
            `variables` by name, each of shape (batch, units).
        """
        h = state["h"][None]
        before = {**{name: state[name] for name in self.memory}, "h": h}
        after = self.evolve(w, a_x[None], self.from_state(w, h), before)
        return {name: array[0] for name, array in after.items()}

    def with_(self, **changes: object) -> Self:
        """Return this cell with some variants changed."""
        return replace(self, **changes)


def product(a: Array, matrix: Array) -> Array:
    """Return ``a @ matrix`` of every step and row as one product: NumPy makes one a step of it."""
    if not is_numpy_array(a) or a.ndim < 3:
        return a @ matrix
    return (a.reshape((-1, a.shape[-1])) @ matrix).reshape((*a.shape[:-1], matrix.shape[-1]))


def bounded(function: Activation, bound: float | None) -> Activation:
    """Return an activation whose argument is first held within ``[-bound, bound]``.

    ``clip`` of ONNX's recurrent operators; None: no bound.
    """
    return function if bound is None else lambda a, out=None: function(clip(a, bound), out)


def split(a: Array, blocks: int) -> tuple[Array, ...]:
    """Split the last axis into `blocks` equal parts, without a copy."""
    size = a.shape[-1] // blocks
    return tuple(a[..., k * size : (k + 1) * size] for k in range(blocks))
