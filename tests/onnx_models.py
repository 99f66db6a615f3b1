"""ONNX models with known contents, and what the oracle makes of them.

A test imports it as ``import onnx_models``, after ``importorskip("onnx")``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import cases
import everystate as es
import oracles

OPS = {"lstm": "LSTM", "gru": "GRU", "simple_rnn": "RNN"}
ORDERS = {"lstm": "iofg", "gru": "zrn", "simple_rnn": "h"}
ROLES = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
OUTPUTS = {"LSTM": ("Y", "Y_h", "Y_c"), "GRU": ("Y", "Y_h"), "RNN": ("Y", "Y_h")}
WAYS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
OPSET, IR = 22, 10
ELEMENTS = {"f": TensorProto.FLOAT, "d": TensorProto.DOUBLE, "e": TensorProto.FLOAT16}

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Node:
    """A recurrent node with random contents: one case of `cases` for each direction.

    `attributes` are ONNX's; the cases' variants must say the same in everystate's words.
    """

    family: str
    parts: tuple[cases.Case, ...]
    direction: str = "forward"
    lengths: np.ndarray | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    left_out: Sequence[str] = ()
    name: str = ""

    @property
    def op(self) -> str:
        return OPS[self.family]

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The node's inputs by ONNX's names, in float32."""
        found: dict[str, np.ndarray] = {"X": self.parts[0].x}
        stacked = [oracles.stacked(part.gates, ORDERS[self.family]) for part in self.parts]
        found |= {name: np.stack([s[name] for s in stacked]) for name in ("W", "R")}
        found["B"] = np.stack([np.concatenate([s["b"], s["b_R"]]) for s in stacked])
        for name in self.parts[0].initial:
            found[f"initial_{name}"] = np.stack([part.initial[name] for part in self.parts])
        if self.parts[0].peephole:
            diagonals = [[p.peephole[k] for k in "iof"] for p in self.parts]
            found["P"] = np.stack([np.concatenate(d) for d in diagonals])
        found = {name: a.astype("float32") for name, a in found.items()}
        if self.lengths is not None:
            found["sequence_lens"] = self.lengths.astype("int32")
        return {name: a for name, a in found.items() if name not in self.left_out}

    def proto(self, prefix: str = "", outputs: Sequence[str] | None = None) -> onnx.NodeProto:
        """The node; its values are called `prefix` and ONNX's name for them."""
        names = [f"{prefix}{role}" if role in self.arrays else "" for role in ROLES]
        while not names[-1]:
            names.pop()
        own = [f"{prefix}{o}" for o in OUTPUTS[self.op]] if outputs is None else outputs
        units = self.parts[0].gates[ORDERS[self.family][0]].R.shape[0]
        return helper.make_node(
            self.op,
            names,
            own,
            name=self.name,
            hidden_size=units,
            direction=self.direction,
            **self.attributes,
        )

    def expected(self, path: str | None = None, **wrong: Any) -> dict[str, Arrays]:
        """What the trace of the node must hold, (batch, time, units), by leaf path."""
        found = {}
        path = self.op.lower() if path is None else path
        for part, reverse in zip(self.parts, WAYS[self.direction], strict=True):
            name = ("backward" if reverse else "forward") if len(self.parts) > 1 else ""
            run = part.expected(lengths=self.lengths, reverse=reverse, **wrong)
            arrays = {n: a.swapaxes(0, 1) for n, a in run.values.items()}
            initial = {f"initial_{n}": a for n, a in part.initial.items()}
            found[f"{path}/{name}" if name else path] = {**arrays, **initial}
        return found


def node(family: str, *, seed: int = 0, direction: str = "forward", **options: Any) -> Node:
    """Return a random node; options of `Node`, and those of `cases.case` for the rest."""
    own = {k: options.pop(k) for k in ("lengths", "attributes", "left_out", "name") if k in options}
    given = own.get("left_out", ())
    biases = (False, False) if "B" in given else (True, True)
    if family == "gru":
        options.setdefault("reset", "before")
    parts = []
    for k, _ in enumerate(WAYS[direction]):
        part = cases.case(family, seed=seed + 17 * k, biases=biases, **options)
        initial = {n: 0.0 * a if f"initial_{n}" in given else a for n, a in part.initial.items()}
        parts.append(rounded(part.with_(initial=initial, x=(parts or [part])[0].x)))
    return Node(family, tuple(parts), direction, **own)


def rounded(part: cases.Case) -> cases.Case:
    """Return a case whose numbers float32 holds, so that both sides compute with the same."""

    def single(a: Any) -> Any:
        return np.float64(np.float32(a))

    gates = {
        name: oracles.Gate(*(single(getattr(gate, n)) for n in ("W", "R", "b", "b_R")))
        for name, gate in part.gates.items()
    }
    peephole = part.peephole and {name: single(a) for name, a in part.peephole.items()}
    return replace(
        part,
        gates=gates,
        x=single(part.x),
        initial={name: single(a) for name, a in part.initial.items()},
        peephole=peephole,
    )


def value(name: str, shape: Sequence[int | str | None] | None, kind: str = "f") -> Any:
    """Return the description of an input or output."""
    kinds = {**ELEMENTS, "i": TensorProto.INT32, "l": TensorProto.INT64, "?": TensorProto.BOOL}
    return helper.make_tensor_value_info(name, kinds[kind], shape)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    tensors: Arrays | None = None,
    **options: Any,
) -> onnx.ModelProto:
    """Return a model; `tensors` are its initializers."""
    stored = [numpy_helper.from_array(a, name) for name, a in (tensors or {}).items()]
    graph = helper.make_graph(list(nodes), "model", list(inputs), list(outputs), stored)
    options.setdefault("opset_imports", [helper.make_opsetid("", OPSET)])
    return helper.make_model(graph, ir_version=IR, **options)


def model_of(layer: Node, outputs: Sequence[str] | None = None) -> onnx.ModelProto:
    """Return a model of one node whose X, states and lengths are inputs, the weights stored."""
    arrays = layer.arrays
    fed = [role for role in ("X", "initial_h", "initial_c", "sequence_lens") if role in arrays]
    proto = layer.proto(outputs=outputs)
    return model(
        [proto],
        [value(role, arrays[role].shape, arrays[role].dtype.kind) for role in fed],
        [value(name, None) for name in proto.output if name],
        {role: a for role, a in arrays.items() if role not in fed},
    )


def feeds_of(layer: Node) -> dict[str, np.ndarray]:
    """Return what to feed `model_of`."""
    fed = ("X", "initial_h", "initial_c", "sequence_lens")
    return {role: a for role, a in layer.arrays.items() if role in fed}


def plain(proto: onnx.ModelProto, feeds: Arrays) -> dict[str, np.ndarray]:
    """Return a model's outputs as onnxruntime alone gives them."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def recorded(proto: onnx.ModelProto, feeds: Arrays, **options: Any) -> Any:
    """Record a model, and check that its outputs are onnxruntime's own, to the last bit."""
    with es.recording(proto, **options) as recorder:
        outputs = recorder.run(feeds)
    theirs = plain(proto, feeds)
    assert list(outputs) == list(theirs)
    for name, array in theirs.items():
        np.testing.assert_array_equal(outputs[name], array)
    return recorder.trace


def assert_trace(trace: Any, expected: Mapping[str, Arrays], tolerance: float = 2e-6) -> None:
    """Assert that a trace has just these leaves and variables, with these values."""
    assert sorted(leaf.path.strip("/") for leaf in trace.leaves) == sorted(expected)
    for path, arrays in expected.items():
        assert set(trace[path].data_vars) == set(arrays), path
        oracles.assert_close({n: trace[path][n].values for n in arrays}, arrays, tolerance)
