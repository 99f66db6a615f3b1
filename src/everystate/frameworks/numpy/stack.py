"""`Stack`: recurrent layers on NumPy, called like ``torch.nn.LSTM``; `Stacks`: a file of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from everystate.cells import Cell
from everystate.errors import UnknownLayerError
from everystate.frameworks.numpy.inputs import Given, read_input
from everystate.frameworks.numpy.reading import Tensor, WeightsFile
from everystate.frameworks.numpy.stepping import Layer, step_through
from everystate.recording.observation import Observation

FinalState = Tensor | tuple[Tensor, ...]
"""A final state as PyTorch has it: ``h_n``, or ``(h_n, c_n)``."""


class Watcher(Protocol):
    """Who is told what a stack does while it runs."""

    def begin(self, stack: "Stack", given: Given) -> None:
        """Hear what the stack was given."""

    def wanted(self, stack: "Stack", layer: Layer, given: Given) -> set[str]:
        """Say which variables to keep at every step, beside the output ``h``."""

    def stepped(self, done: int, total: int) -> None:
        """Hear how many steps are done, of all layers together."""

    def observe(self, stack: "Stack", seen: Observation) -> None:
        """Take what one layer did."""


@dataclass(frozen=True, eq=False, repr=False)
class Stack:
    """One or several recurrent layers in one or both directions, on NumPy.

    Comes from `load`. Called like ``torch.nn.LSTM``: ``outputs, final_state = stack(x, state)``.

    Parameters
    ----------
    name : str
        What it is called in its file: ``encoder``.
    cell : Cell
        Its equations.
    levels : tuple of tuple of Layer
        For each layer, its directions.
    attrs : mapping
        Attributes of its leaves in a trace.
    batch_first : bool
        Whether inputs and outputs are (batch, time, ...) or (time, batch, ...).
    """

    name: str
    cell: Cell
    levels: tuple[tuple[Layer, ...], ...]
    attrs: Mapping[str, str]
    batch_first: bool = True
    watchers: list[Watcher] = field(default_factory=list)

    @property
    def layers(self) -> list[Layer]:
        """Every layer and direction, in the order of the states."""
        return [layer for level in self.levels for layer in level]

    @property
    def features(self) -> int:
        """Number of features of the input."""
        return int(self.layers[0].weights.W.shape[1])

    @property
    def sizes(self) -> dict[str, int]:
        """Number of units of each state; those of a projected ``h`` are fewer."""
        w = self.layers[0].weights
        return {"h": int(w.R.shape[1]), "c": self.cell.units(w)}

    @property
    def dtype(self) -> "np.dtype[Any]":
        """What it computes in."""
        dtype: np.dtype[Any] = self.layers[0].weights.W.dtype
        return dtype

    def __repr__(self) -> str:
        return f"<Stack {self.name}: {self.describe()}>"

    def describe(self) -> str:
        """Return family and sizes in PyTorch's words: ``LSTM(3, 32, num_layers=2)``."""
        said = [str(self.features), str(self.sizes["c"])]
        said += [f"num_layers={len(self.levels)}"] if len(self.levels) > 1 else []
        said += ["bidirectional=True"] if len(self.levels[0]) > 1 else []
        projected = self.layers[0].weights.projection is not None
        said += [f"proj_size={self.sizes['h']}"] if projected else []
        return f"{self.attrs['module']}({', '.join(said)})"

    def __call__(
        self, x: Any, state: Any = None, lengths: Sequence[int] | None = None
    ) -> tuple[Tensor, FinalState]:
        """Run over a sequence.

        Parameters
        ----------
        x : array
            (batch, time, features), or (time, batch, features) if not ``batch_first``; or one
            sequence, (time, features); or (time,) if there is one feature. It is cast to the
            weights' dtype.
        state : array, or tuple of two (LSTM), optional
            The initial state as PyTorch has it: (layers * directions, batch, units), without
            the batch for one sequence. None: zeros.
        lengths : sequence of int, optional
            Valid steps of each row, as in a packed sequence: the state stays as it is after
            them, outputs are zero, and a backward layer begins at the last of them. None: all.

        Returns
        -------
        outputs : ndarray
            The last layer's ``h`` at every step, its directions side by side.
        final_state : ndarray, or tuple of two (LSTM)
            In the shape of `state`.

        Raises
        ------
        InputError
            If a shape does not fit, or batch or time are empty.
        InputTypeError
            If something is not an array of numbers.
        """
        given = read_input(self, x, state, lengths)
        for watcher in self.watchers:
            watcher.begin(self, given)
        outputs, finals = self._run(given)
        final = tuple(np.stack([f[name] for f in finals]) for name in self.cell.states)
        final = final if given.batched else tuple(s[:, 0] for s in final)
        return given.in_layout(self, outputs), final if len(final) > 1 else final[0]

    def _run(self, given: Given) -> tuple[Tensor, list[dict[str, Tensor]]]:
        x = given.x
        finals: list[dict[str, Tensor]] = []
        for directions in self.levels:
            width = self.sizes["h"]
            outputs = np.empty((*x.shape[:2], len(directions) * width), self.dtype)
            for k, layer in enumerate(directions):
                h = outputs[..., k * width : (k + 1) * width]
                finals.append(self._run_layer(layer, given, x, h, len(finals)))
            x = outputs
        return x, finals

    def _run_layer(
        self, layer: Layer, given: Given, x: Tensor, h: Tensor, place: int
    ) -> dict[str, Tensor]:
        steps = x.shape[0]

        def tick(done: int) -> None:
            for watcher in self.watchers:
                watcher.stepped(place * steps + done, len(self.layers) * steps)

        wanted = [watcher.wanted(self, layer, given) for watcher in self.watchers]
        names = set().union(*wanted) - {"h"}
        units = self.sizes["c"]
        kept = {n: np.empty((*x.shape[:2], units), self.dtype) for n in names} | {"h": h}
        final = step_through(
            self.cell, layer, x, given.initial[place], kept, lengths=given.lengths, tick=tick
        )
        for watcher, own in zip(self.watchers, wanted, strict=True):
            seen = Observation(
                path=layer.path,
                observed={name: kept[name] for name in kept if name in {*own, "h"}},
                initial=given.initial[place],
                final=final,
                inputs=x,
                cell=self.cell,
                weights=layer.weights,
                lengths=given.lengths,
                reverse=layer.reverse,
                precision=self.dtype.name,
                attrs=self.attrs,
            )
            watcher.observe(self, seen)
        return final


class Stacks(dict[str, Stack]):
    """The recurrent stacks of one file, by name; what `load` returns.

    Parameters
    ----------
    stacks : mapping
        Each `Stack` by its name.
    file : WeightsFile
        Where they come from.
    others : mapping
        Shapes of the tensors that belong to no recurrent layer, such as a linear head's.
    """

    def __init__(
        self, stacks: Mapping[str, Stack], file: WeightsFile, others: Mapping[str, tuple[int, ...]]
    ) -> None:
        super().__init__(stacks)
        self.others = dict(others)
        self._file = file
        self.__name__ = str(file.path)  # what a trace says of its model

    def tensor(self, name: str) -> Tensor:
        """Return one of the file's tensors, such as ``head.weight``, as it is stored.

        Half precision comes as float32. Raises `WeightsError` if there is none of that name.
        """
        return self._file.read(name)

    def __missing__(self, name: str) -> Stack:
        raise UnknownLayerError(
            f"no stack {name!r} in {self._file.path}; it has {', '.join(self)}."
        )

    def __repr__(self) -> str:
        stacks = ", ".join(f"{name}: {stack.describe()}" for name, stack in self.items())
        others = f"; other tensors: {', '.join(self.others)}" if self.others else ""
        return f"<Stacks of {self._file.path}: {stacks}{others}>"
