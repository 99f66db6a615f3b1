"""Running a model chunk by chunk: the state of each recurrent node and loop in it is carried on.

The first chunk is run by the model as it is, whatever its states begin with: nothing, constants,
or what the graph computes. For those that follow the initial states are made inputs of the graph,
which are fed what the node's last call ended with.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Final, cast

import onnx
from onnx import helper

from everystate.errors import InputError, UncuttableError
from everystate.frameworks.onnx import quantised
from everystate.frameworks.onnx.files import Source, Tensor, attributes, read_model
from everystate.frameworks.onnx.finding import Found, find
from everystate.frameworks.onnx.graph import LOOPS, Scope
from everystate.frameworks.onnx.loops import carried
from everystate.frameworks.onnx.model import Observed, call, observing
from everystate.frameworks.onnx.nodes import INPUTS, OUTPUTS, directions
from everystate.frameworks.onnx.recurrent import is_recurrent
from everystate.recording.discovery import model_name
from everystate.recording.recorder import Recorder
from everystate.recording.selection import Select
from everystate.recording.stream import Stream
from everystate.recording.time_axis import time_axis_of

CARRIED: Final = "everystate:carried"
"""What the values that are added to a graph are called."""

BACKWARDS: Final = "reads backwards: it begins at the end of the sequence."

States = Mapping[str, Tensor]


def stream(model: Any) -> Stream:
    """Return how to run a model chunk by chunk (see `everystate.recording.stream.Stream`)."""
    return _named(model, None, {}, named=partial(_named, model))


def _named(model: Any, name: str | None, others: Mapping[str, Any], **options: Any) -> Stream:
    """Return how to run it on one of its inputs, the first by default, given the others."""
    chunks = _Chunks(model, name, others)
    return Stream(chunks.step, chunks.time_axis, call=chunks.call, **options)


@dataclass(eq=False)
class _Chunks:
    """A model, prepared for a first chunk or for those that follow.

    Parameters
    ----------
    model : path or onnx.ModelProto
        The model.
    name : str, optional
        The input that is cut. None: the first.
    others : mapping
        The other inputs.
    """

    model: Any
    name: str | None
    others: Mapping[str, Any]
    now: tuple[Recorder | None, bool, Observed, "_Carrying"] | None = None

    def step(self, x: Any, states: States | None) -> tuple[dict[str, Tensor], States]:
        """Run one chunk; return the outputs, and all states after it."""
        observed, carrying = self._prepared(states)
        results = observed.call(({**self.others, self._sequence.name: x, **(states or {})},))
        after = {name: results[name] for name in carrying.names if results[name].dtype.kind == "f"}
        outputs = {n: a for n, a in results.items() if n not in carrying.added}
        return outputs, {f"{CARRIED}:{name}": a for name, a in after.items()}

    def call(self, x: Any) -> dict[str, Tensor]:
        """Run it whole."""
        return call(self.model, ({**self.others, self._sequence.name: x},))

    def time_axis(self, x: Any) -> int:
        """Return which axis of the input that is cut is time."""
        sequence, name = self._sequence, model_name(self.model)
        kind = sequence.type.tensor_type
        sizes = [d.dim_value or None for d in kind.shape.dim] if kind.HasField("shape") else None

        def steps_of(ones: Tensor) -> set[int]:
            recorder = Recorder(name, "onnx", Select(variables="states"))
            Observed(self.model, recorder).call(({**self.others, sequence.name: ones},))
            return {leaf.sizes["time"] for leaf in recorder.trace.leaves}

        return time_axis_of(x, sizes, steps_of, name)

    @cached_property
    def _sequence(self) -> onnx.ValueInfoProto:
        return _sequence(read_model(self.model).proto.graph, self.name)

    def _prepared(self, states: States | None) -> tuple[Observed, "_Carrying"]:
        outer = observing(self.model)
        recorder = outer.recorder if outer else None
        if self.now is None or self.now[:2] != (recorder, states is None):
            carrying = _Carrying(states or {})
            observed = Observed(self.model, recorder, carrying.rewrite)
            self.now = recorder, states is None, observed, carrying
        return self.now[2:]


@dataclass(eq=False)
class _Carrying:
    """Makes a model put out what it carries, and begin with what it is given.

    Parameters
    ----------
    states : mapping
        What it is to begin with, by the names of the inputs that are made for it.
    """

    states: States
    names: list[str] = field(default_factory=list)
    """The values that hold its states after a call."""
    added: set[str] = field(default_factory=set)
    """Which of them are no outputs of its own."""

    def rewrite(self, source: Source) -> None:
        """Change a model that was just read."""
        graph = source.proto.graph
        self.names.clear()  # it may be read again
        own = {value.name for value in graph.output}
        for found in find(source):
            for node, slot, place in _carried(found):
                node.output[place] = node.output[place] or f"{CARRIED}:{len(self.names)}"
                self.names.append(node.output[place])
                self._feed(graph, node, slot)
        self.added = set(self.names) - own
        graph.output.extend(onnx.ValueInfoProto(name=n) for n in self.names if n not in own)

    def _feed(self, graph: onnx.GraphProto, node: onnx.NodeProto, slot: int) -> None:
        """Have a node take its state from an input, if there is one for it."""
        fed = f"{CARRIED}:{self.names[-1]}"
        if fed in self.states:
            state = self.states[fed]
            kind = helper.np_dtype_to_tensor_dtype(state.dtype)
            sizes = [None] * state.ndim
            graph.input.append(helper.make_tensor_value_info(fed, kind, sizes))
            node.input.extend([""] * (slot + 1 - len(node.input)))
            node.input[slot] = fed


def _sequence(graph: onnx.GraphProto, name: str | None) -> onnx.ValueInfoProto:
    """Return the input of some name; without one, the first that the model does not know itself."""
    stored = {tensor.name for tensor in graph.initializer}
    fed = [value for value in graph.input if value.name not in stored]
    for value in fed:
        if name in (None, value.name):
            return cast(onnx.ValueInfoProto, value)
    there = ", ".join(value.name for value in fed)
    raise InputError(f"the model has no input {name}; it takes: {there or 'none'}.")


def _carried(found: Found) -> Iterator[tuple[onnx.NodeProto, int, int]]:
    """Yield a node and the places of each state: among its inputs, and among its outputs.

    Raises
    ------
    UncuttableError
        If its state cannot be carried from one call to the next.
    """
    node = found.node
    if found.scope.parent is not None:
        _check_inside(found)
        return
    if node.op_type not in LOOPS and found.written:
        raise UncuttableError(
            f"{found.path} is written out, step by step: it takes as many steps as it has. Cut the "
            "sequence yourself, if the model's state comes in and goes out."
        )
    if not is_recurrent(node):
        if any(attributes(node).get("scan_input_directions", ())):
            raise UncuttableError(f"{found.path} {BACKWARDS}")
        yield from ((node, state.slot, state.place) for state in carried(node))
        return
    _check(found)
    inputs, outputs = INPUTS[node.op_type], OUTPUTS[node.op_type]
    node.output.extend([""] * (len(outputs) - len(node.output)))
    for place, role in enumerate(outputs[1:], 1):
        yield node, inputs.index(role.replace("Y", "initial")), place


def _check(found: Found) -> None:
    path, node = found.path, found.node
    if any(way.reverse for way in directions(path, node)):
        raise UncuttableError(f"{path} {BACKWARDS}")
    if node.op_type == quantised.OP:
        raise UncuttableError(
            f"{path} is quantised as it runs: the whole of its input decides how a step is rounded."
        )
    lengths = dict(zip(INPUTS[node.op_type], node.input, strict=False)).get("sequence_lens")
    if lengths and lengths not in found.scope.producers:
        raise UncuttableError(f"{path} is given sequence_lens, at which its rows end.")


def _check_inside(found: Found) -> None:
    """Check that a node or loop in a body goes on with a loop around it; a branch does not."""
    scope: Scope | None = found.scope
    while scope is not None and scope.parent is not None and scope.node is not None:
        if scope.node.op_type in LOOPS:
            return
        scope = scope.parent
    raise UncuttableError(f"{found.path} is in a branch of If, which may not be taken.")
