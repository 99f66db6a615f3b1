"""The calls of Flax's layers and cells, tagged while a model is traced.

An `RNN` and a `Bidirectional` say how the cell in them is stepped: backwards, over sequences of
several lengths. A cell shows its states, its input and its weights.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax

from everystate.frameworks.flax.cells import Known, known
from everystate.frameworks.jax.naming import state_names
from everystate.frameworks.jax.tags import Call, tag, tag_all
from everystate.recording import custom


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer, or a cell, that is being called.

    Parameters
    ----------
    kind : {"bidirectional", "rnn", "cell"}
        What it is.
    path : str
        Its path in the trace.
    call : Call
        What tags inside it belong to.
    """

    kind: str
    path: str
    call: Call


class Calls:
    """The layers being called, the innermost last; what they say of the cell they step."""

    def __init__(self) -> None:
        self.open: list[Layer] = []
        self._cells: dict[tuple[str, Call | None], Call] = {}

    @contextmanager
    def inside(self, layer: Layer) -> Iterator[None]:
        """Note that a layer is being called."""
        self.open.append(layer)
        try:
            yield
        finally:
            self.open.pop()

    def bidirectional(self, path: str, run: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a `Bidirectional`."""
        with self.inside(Layer("bidirectional", path, Call(path))):
            return run(*args, **kwargs)

    def rnn(
        self, path: str, run: Callable[..., Any], module: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Call an `RNN`; its sequences' lengths are tagged."""
        reverse = kwargs.get("reverse")
        reverse = bool(module.reverse if reverse is None else reverse)
        if self.open and self.open[-1].kind == "bidirectional":
            path = f"{self.open[-1].path}/{'backward' if reverse else 'forward'}"
        call = Call(path, reverse=reverse)
        lengths = kwargs.get("seq_lengths")
        if lengths is not None:
            kwargs["seq_lengths"] = tag(jax.numpy.asarray(lengths), call, "lengths", "lengths")
        with self.inside(Layer("rnn", path, call)):
            return run(*args, **kwargs)

    def cell(
        self, path: str, run: Callable[..., Any], module: Any, cls: type, weights: Mapping[str, Any]
    ) -> Callable[[Any, Any], Any]:
        """Return a function of carry and input that calls a cell, with its values tagged."""

        def step(carry: Any, x: Any, **kwargs: Any) -> Any:
            call = self._call(path, module, cls, carry)
            for name, array in weights.items():
                tag(array, call, "weight", name)
            with self.inside(Layer("cell", call.path, call)):
                after, y = run(tag_all(carry, call, "before"), tag(x, call, "input", "x"), **kwargs)
            return tag_all(after, call, "after"), y

        return step

    def _call(self, path: str, module: Any, cls: type, carry: Any) -> Call:
        layer = self.open[-1] if self.open else None
        within = layer.call if layer is not None and layer.kind == "rnn" else None
        path = path if within is None else within.path
        if (path, within) not in self._cells:
            self._cells[path, within] = cell_call(path, module, cls, carry, within)
        return self._cells[path, within]


def cell_call(path: str, module: Any, cls: type, carry: Any, within: Call | None) -> Call:
    """Return what the tags of a cell belong to."""
    found = known(cls) or Known(_own_names(cls, carry))
    order = {"framework_gate_order": found.gate_order} if found.read else {}
    return Call(
        path,
        cell=found.cell(module) if found.cell else None,
        states=found.states,
        attrs={"module": cls.__name__, **order},
        feature_axes=module.num_feature_axes,
        reverse=within is not None and within.reverse,
        within=within,
        precision=_half(getattr(module, "dtype", None)),
        weights=found.read,
    )


def _half(dtype: Any) -> str | None:
    """Return the name of a dtype that rounds more than the states that it is computed for."""
    name = None if dtype is None else jax.numpy.dtype(dtype).name
    return name if name in ("bfloat16", "float16") else None


def _own_names(cls: type, carry: Any) -> tuple[str, ...]:
    """Return what a user's cell calls its states, else the names of their structure."""
    if custom.is_cell(cls):
        return custom.state_names(cls)
    leaves = jax.tree_util.tree_flatten_with_path(carry)[0]
    return state_names([jax.tree_util.keystr(path) for path, _ in leaves])


def joined(parts: Sequence[object], root: object) -> str:
    """Return a module's path in the trace; the model itself goes by its class."""
    path = "/".join(str(part) for part in parts if part not in ("", None))
    return path or type(root).__name__.lower()
