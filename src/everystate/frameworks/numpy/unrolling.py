"""`unroll`: a stack's results and all its states, as plain arrays."""

from dataclasses import dataclass, field
from typing import Any

from everystate.errors import UnsupportedModelError
from everystate.frameworks.numpy import custom
from everystate.frameworks.numpy.inputs import Given
from everystate.frameworks.numpy.reading import Tensor
from everystate.frameworks.numpy.stack import Stack
from everystate.frameworks.numpy.stepping import Layer
from everystate.recording.custom import unroll_cell
from everystate.recording.observation import Lengths, Observation
from everystate.recording.unrolled import LayerStates, States, Unrolled


def unroll(stack: Any, *inputs: Any) -> Unrolled:
    """Run a `Stack`, or a cell of one's own, and return all its states (NumPy has no gradients).

    Parameters
    ----------
    stack : Stack, or callable that names its states
        One recurrent stack; a cell is stepped over the first axis of its input.
    *inputs
        What it is called with: the input, the initial state, the lengths.

    Returns
    -------
    Unrolled

    Raises
    ------
    UnsupportedModelError
        If `stack` is a file or a mapping of stacks.
    InputError, InputTypeError
        If the input does not fit.
    """
    if custom.matches(stack):
        return unroll_cell(custom.path_of(stack), stack, *inputs)
    if not isinstance(stack, Stack):
        raise UnsupportedModelError(
            f"unroll takes one recurrent stack, got {stack!r}. Try "
            "es.unroll(everystate.frameworks.numpy.load(path)['encoder'], x)."
        )
    collector = _Collector()
    stack.watchers.append(collector)
    try:
        outputs, final = stack(*inputs)
    finally:
        stack.watchers.remove(collector)
    return Unrolled(outputs, final, States(collector.layers), collector.lengths)


@dataclass(eq=False)
class _Collector:
    """Keeps every variable of every layer of one call."""

    layers: dict[str, LayerStates] = field(default_factory=dict)
    lengths: Lengths | None = None

    def begin(self, _stack: Stack, given: Given) -> None:
        self.given = given
        self.lengths = given.lengths

    def wanted(self, stack: Stack, _layer: Layer, _given: Given) -> set[str]:
        return set(stack.cell.variables)

    def stepped(self, done: int, total: int) -> None:
        pass

    def observe(self, stack: Stack, seen: Observation) -> None:
        def restored(a: Tensor) -> Tensor:
            return self.given.in_layout(stack, a)

        states = {name: restored(seen.observed[name]) for name in stack.cell.variables}
        batched = self.given.batched
        initial = {f"initial_{n}": a if batched else a[0] for n, a in seen.initial.items()}
        place = seen.path.removeprefix(stack.name.replace(".", "/") + "/")
        self.layers[place] = LayerStates({**states, **initial})
