"""The recurrent operators: their equations and weights, in canonical form.

Source: ``docs/Operators.md`` of ONNX, ``LSTM``, ``GRU`` and ``RNN``; what it leaves open is as
onnxruntime has it, and verification says so if it is not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx

from everystate.cells import GRU, LSTM, Cell, SimpleRNN, Weights
from everystate.errors import UnsupportedModelError
from everystate.frameworks.onnx import quantised
from everystate.frameworks.onnx.files import Tensor, attributes
from everystate.recording.observation import widened

_LSTM: Final = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
_SCALES: Final = ("W_scale", "W_zero_point", "R_scale", "R_zero_point")
INPUTS: Final[Mapping[str, tuple[str, ...]]] = {
    "LSTM": _LSTM,
    quantised.OP: (*_LSTM, *_SCALES),
    "GRU": ("X", "W", "R", "B", "sequence_lens", "initial_h"),
    "RNN": ("X", "W", "R", "B", "sequence_lens", "initial_h"),
}
WEIGHTS: Final = ("W", "R", "B", "P", *_SCALES)
OUTPUTS: Final[Mapping[str, tuple[str, ...]]] = {
    "LSTM": ("Y", "Y_h", "Y_c"),
    quantised.OP: ("Y", "Y_h", "Y_c"),
    "GRU": ("Y", "Y_h"),
    "RNN": ("Y", "Y_h"),
}
GATE_ORDER: Final[Mapping[str, str]] = {
    "LSTM": "i o f g",
    quantised.OP: "i o f g",
    "GRU": "z r n",
    "RNN": "",
}
FAMILY: Final = {quantised.OP: "LSTM"}
"""Whose equations an operator of another name has."""
_CANONICAL: Final[Mapping[str, tuple[int, ...]]] = {
    "LSTM": (0, 2, 3, 1),
    "GRU": (1, 0, 2),
    "RNN": (0,),
}
"""Where in ONNX's order each gate of ours is found."""

_DEFAULT_ACTIVATIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "LSTM": ("Sigmoid", "Tanh", "Tanh"),
    "GRU": ("Sigmoid", "Tanh"),
    "RNN": ("Tanh",),
}
_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "LSTM": ("recurrent_activation", "activation", "output_activation"),
    "GRU": ("recurrent_activation", "activation"),
    "RNN": ("activation",),
}
_PLAIN: Final = ("relu", "sigmoid", "softplus", "softsign", "tanh")
_PARAMETRIC: Final[Mapping[str, tuple[str, float, float | None]]] = {
    "affine": ("affine", 0.0, 0.0),
    "elu": ("elu", 1.0, None),
    "hardsigmoid": ("hard_sigmoid_onnx", 0.2, 0.5),
    "leakyrelu": ("leaky_relu", 0.01, None),
    "scaledtanh": ("scaled_tanh", 0.0, 0.0),
    "thresholdedrelu": ("thresholded_relu", 0.0, None),
}
"""Our name, and the alpha and beta that onnxruntime takes where the node has none."""


@dataclass(frozen=True)
class Direction:
    """One direction of a node: its place in W, R and Y, its name, its equations."""

    place: int
    name: str
    reverse: bool
    cell: Cell


def directions(path: str, node: onnx.NodeProto) -> list[Direction]:
    """Return the directions of a recurrent node.

    Raises
    ------
    UnsupportedModelError
        If an attribute has a value that ONNX does not know.
    """
    given = attributes(node)
    said = given.get("direction", "forward")
    ways = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
    if said not in ways:
        raise UnsupportedModelError(
            f"{path}: direction={said!r}, expected one of {', '.join(ways)}."
        )
    names = ("forward", "backward") if len(ways[said]) == 2 else ("",)
    family = FAMILY.get(node.op_type, node.op_type)
    functions = _activations(path, family, given, len(names))
    return [
        Direction(k, names[k], reverse, _cell(family, given, functions[k]))
        for k, reverse in enumerate(ways[said])
    ]


def _cell(op: str, given: Mapping[str, Any], functions: Sequence[str]) -> Cell:
    variants: dict[str, Any] = dict(zip(_FIELDS[op], functions, strict=True))
    if "clip" in given:
        variants["gate_clip"] = float(np.float32(given["clip"]))
    if op == "LSTM":
        coupled = True if given.get("input_forget") else None
        return LSTM(**variants, coupled=coupled)
    if op == "GRU":
        return GRU(**variants, reset="after" if given.get("linear_before_reset") else "before")
    return SimpleRNN(**variants)


def _activations(path: str, op: str, given: Mapping[str, Any], ways: int) -> list[list[str]]:
    """Return our names of the activations of each direction, in ONNX's order."""
    names = list(given.get("activations", ()) or _DEFAULT_ACTIVATIONS[op] * ways)
    count = len(_DEFAULT_ACTIVATIONS[op])
    if len(names) != count * ways:
        raise UnsupportedModelError(
            f"{path}: {len(names)} activations ({', '.join(names)}), expected {count * ways}."
        )
    alphas, betas = (list(given.get(f"activation_{a}", ())) for a in ("alpha", "beta"))
    found = [_activation(path, name, alphas, betas) for name in names]
    return [found[k * count : (k + 1) * count] for k in range(ways)]


def _activation(path: str, name: str, alphas: list[float], betas: list[float]) -> str:
    """Return our name of an activation; it takes its alpha and beta off the lists."""
    plain = name.lower()
    if plain in _PLAIN:
        return plain
    if plain not in _PARAMETRIC:
        raise UnsupportedModelError(
            f"{path}: the activation {name!r} is not one of ONNX's recurrent operators: "
            f"{', '.join((*_PLAIN, *_PARAMETRIC))}."
        )
    ours, alpha, beta = _PARAMETRIC[plain]
    parameters = [alphas.pop(0) if alphas else alpha]
    if beta is not None:
        parameters.append(betas.pop(0) if betas else beta)
    return f"{ours}({', '.join(str(np.float32(p)) for p in parameters)})"


def canonical(op: str, arrays: Mapping[str, Tensor], place: int) -> Weights:
    """Return the weights of one direction.

    Parameters
    ----------
    op : {"LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"}
        The operator; weights of the last one are already floating numbers.
    arrays : mapping
        The node's inputs W and R, and B and P where it has them, by these names.
    place : int
        Which direction.
    """
    own = {n: widened(arrays[n][place]) for n in ("W", "R", "B", "P") if arrays.get(n) is not None}
    op = FAMILY.get(op, op)
    order = list(_CANONICAL[op])

    def reordered(a: Tensor) -> Tensor:
        blocks = a.reshape((len(order), -1, *a.shape[1:]))
        return blocks[order].reshape(a.shape)

    b = b_R = peephole = None
    if "B" in own:
        b, b_R = (reordered(part) for part in np.split(own["B"], 2))
        if op != "GRU":
            b, b_R = b + b_R, None  # only ever added: one bias is enough
    if "P" in own:
        peephole = own["P"].reshape(3, -1)[[0, 2, 1]]  # i o f
    return Weights(reordered(own["W"]), reordered(own["R"]), b, b_R, peephole)
