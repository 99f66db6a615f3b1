"""The graph and the graphs inside it: who makes a value, and how one is shown at the top.

A value inside the body of ``Scan`` or ``Loop`` becomes one more scan output, which onnxruntime
stacks over the iterations; one inside a branch of ``If`` one more output, which is empty where
the other branch ran.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from everystate.frameworks.onnx.files import Source, Tensor, attributes, subgraphs

LOOPS: Final = ("Loop", "Scan")
BODIES: Final = (*LOOPS, "If")
"""Operators whose bodies can show what is inside them."""
OWN_DOMAINS: Final = ("", "ai.onnx")


class Scope:
    """One graph: the model's own, or the body of a node.

    Parameters
    ----------
    graph : onnx.GraphProto
        The graph.
    parent : Scope, optional
        The graph that `node` is in. None: this is the model's own.
    node : onnx.NodeProto, optional
        Whose body this is.
    body : str
        Under which of its attributes: ``then_branch``.
    """

    def __init__(
        self,
        graph: onnx.GraphProto,
        parent: "Scope | None" = None,
        node: onnx.NodeProto | None = None,
        body: str = "",
    ) -> None:
        self.graph, self.parent, self.node, self.body = graph, parent, node, body
        self.inputs = {value.name for value in graph.input}
        self.initializers = {tensor.name: tensor for tensor in graph.initializer}
        self.producers = {name: n for n in graph.node for name in n.output if name}
        self.inside = {
            k: [Scope(g, self, n, attribute) for attribute, g in subgraphs(n)]
            for k, n in enumerate(graph.node)
        }

    @property
    def levels(self) -> int:
        """How many loops it is inside of."""
        if self.parent is None or self.node is None:
            return 0
        return self.parent.levels + (self.node.op_type in LOOPS)

    @property
    def visible(self) -> bool:
        """Whether its values can be shown."""
        if self.parent is None or self.node is None:
            return True
        return self.node.op_type in BODIES and self.parent.visible

    def owner(self, name: str) -> "Scope":
        """Return the scope that a name used here belongs to."""
        known = name in self.inputs or name in self.initializers or name in self.producers
        return self if known or self.parent is None else self.parent.owner(name)

    def body_of(self, node: onnx.NodeProto) -> "Scope":
        """Return the body of a loop that is in this graph; no two nodes share outputs."""
        return next(
            scope
            for scopes in self.inside.values()
            for scope in scopes
            if scope.node is not None and list(scope.node.output) == list(node.output)
        )

    def scopes(self) -> Iterator["Scope"]:
        """Yield every graph inside this one."""
        for scopes in self.inside.values():
            for scope in scopes:
                yield scope
                yield from scope.scopes()

    def walk(self) -> Iterator[tuple["Scope", onnx.NodeProto]]:
        """Yield every node and its scope; a node comes before those inside it."""
        for k, scopes in self.inside.items():
            yield self, self.graph.node[k]
            for scope in scopes:
                yield from scope.walk()


@dataclass(frozen=True, eq=False)
class Value:
    """Where the numbers of one value are found after a run.

    Parameters
    ----------
    constant : ndarray, optional
        The value itself; of an input, what it is if it is not fed.
    name : str
        Of the input that is fed, or of the output that shows it.
    levels : int
        How many leading axes are iterations of loops.
    """

    constant: Tensor | None = None
    name: str = ""
    levels: int = 0

    def calls(self, values: Mapping[str, Tensor], loops: tuple[int, ...]) -> "Calls":
        """Return the value in each iteration of the loops around whoever uses it.

        Parameters
        ----------
        values : mapping
            What was fed and what was put out, by name.
        loops : tuple of int
            Number of iterations of each loop, the outermost first.
        """
        array = values.get(self.name, self.constant)
        assert array is not None
        inner, outer = (math.prod(n) for n in (loops[self.levels :], array.shape[: self.levels]))
        return Calls(array.reshape((outer, *array.shape[self.levels :])), inner)


@dataclass(frozen=True, eq=False)
class Calls:
    """A value by iteration; one of an outer loop stays as it is for `inner` iterations."""

    array: Tensor
    inner: int

    def __getitem__(self, k: int) -> Tensor:
        found: Tensor = self.array[k // self.inner]
        return found


@dataclass(eq=False)
class Exposure:
    """Shows values of a model at its top, by further outputs.

    Parameters
    ----------
    source : Source
        The model; its graph is changed.
    outputs : list of str
        The further outputs.
    """

    source: Source
    outputs: list[str] = field(default_factory=list)
    _shown: dict[tuple[int, str], Value] = field(default_factory=dict)
    _listed: set[str] = field(default_factory=set)
    _names: int = 0

    def value(self, scope: Scope, name: str) -> Value:
        """Return where a value that is used in a scope is found; it is shown if need be."""
        scope = scope.owner(name)
        fed = scope.parent is None and name in scope.inputs
        producer = scope.producers.get(name)
        if name in scope.initializers:
            array = self.source.array(scope.initializers[name])
            return Value(array, name if fed else "")
        if producer is not None and producer.op_type == "Constant":
            (stored,) = attributes(producer).values()
            is_tensor = isinstance(stored, onnx.TensorProto)
            return Value(self.source.array(stored) if is_tensor else np.asarray(stored))
        if fed:
            return Value(None, name)
        return self._expose(scope, name)

    def _expose(self, scope: Scope, name: str) -> Value:
        key = (id(scope.graph), name)
        if key not in self._shown:
            levels, outer = scope.levels, name
            while scope.parent is not None:
                outer = self._outwards(scope, outer)
                scope = scope.parent
            if outer not in self._put_out:
                scope.graph.output.append(onnx.ValueInfoProto(name=outer))
                self._put_out.add(outer)
            if outer not in self._listed:
                self.outputs.append(outer)
                self._listed.add(outer)
            self._shown[key] = Value(None, outer, levels)
        return self._shown[key]

    @cached_property
    def _put_out(self) -> set[str]:
        """What the model puts out, its own outputs and those that were added."""
        return {output.name for output in self.source.proto.graph.output}

    def _outwards(self, scope: Scope, name: str) -> str:
        """Make a body's value an output of its node; return that output's name."""
        node = scope.node
        assert node is not None
        inner, outer = self.fresh(), self.fresh()
        scope.graph.node.append(helper.make_node("Identity", [name], [inner]))
        scope.graph.output.append(onnx.ValueInfoProto(name=inner))
        node.output.append(outer)
        if node.op_type == "If":
            self._nothing_elsewhere(scope, node, name)
        for attribute in node.attribute:
            if attribute.name in ("scan_output_axes", "scan_output_directions"):
                attribute.ints.append(0)
        return outer

    def _nothing_elsewhere(self, scope: Scope, node: onnx.NodeProto, name: str) -> None:
        """Give the other branch of an ``If`` an output of the same type that holds nothing."""
        kind = self._types.get(name, onnx.TensorProto.FLOAT)
        nothing = numpy_helper.from_array(np.empty(0, helper.tensor_dtype_to_np_dtype(kind)))
        for attribute, body in subgraphs(node):
            if attribute != scope.body:
                empty = self.fresh()
                body.node.append(helper.make_node("Constant", [], [empty], value=nothing))
                body.output.append(onnx.ValueInfoProto(name=empty))

    @cached_property
    def _types(self) -> dict[str, int]:
        """The element type of every value, as far as inference goes."""
        inferred = onnx.shape_inference.infer_shapes(self.source.proto).graph
        graphs = [inferred, *(scope.graph for scope in Scope(inferred).scopes())]
        values = [v for g in graphs for v in (*g.value_info, *g.input, *g.output)]
        return {v.name: v.type.tensor_type.elem_type for v in values if v.HasField("type")}

    def fresh(self) -> str:
        """Return a name that no value of the model has."""
        self._names += 1
        return f"everystate:{self._names}"
