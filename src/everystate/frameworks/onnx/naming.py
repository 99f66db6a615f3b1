"""Leaf paths from the names of nodes, as exporters give them.

PyTorch's older exporter calls the nodes of ``encoder.lstm`` ``/encoder/lstm/LSTM`` and
``/encoder/lstm/LSTM_1``; they become ``encoder/lstm/layer_0`` and ``encoder/lstm/layer_1``, as in a
trace of the PyTorch model. Its newer one numbers nodes through, and notes the modules around each
in the node's metadata. TensorFlow's converter calls the loop of ``model/gru``
``model/gru/while_loop``. A node without a name goes by its operator.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import onnx

from everystate import schema

ENDINGS: Final = {
    "Loop": r"Loop|while(_\d+)?_loop|generic_loop_Loop",
    "Scan": r"(custom_rnn_scan_)?Scan",
}
"""How exporters end the name of an operator's node, if not with the operator."""
SCOPES: Final = "pkg.torch.onnx.name_scopes"
"""Where PyTorch's newer exporter notes the modules around a node."""


@dataclass(frozen=True)
class Named:
    """What a path is made of.

    Parameters
    ----------
    name : str
        The node's name; may be empty.
    op : str
        Its operator.
    within : int, optional
        Place, in the list, of the loop that it is inside of.
    weights : str
        What tells its weights from others': nodes of one module with the same weights are calls
        of one layer, and share a path.
    """

    name: str
    op: str
    within: int | None = None
    weights: str = ""


def name_of(node: onnx.NodeProto, op: str) -> str:
    """Return what an exporter calls a node: its module and operator where it says so.

    Parameters
    ----------
    node : onnx.NodeProto
        The node.
    op : str
        Its operator, as its name ends.
    """
    noted = [entry.value for entry in node.metadata_props if entry.key == SCOPES]
    scopes = re.findall(r"'([^']*)'", noted[0]) if noted else []
    if len(scopes) < 2:  # the model, the modules on the way, the operator: ['', 'enc.gru', 'gru']
        return node.name
    return f"{scopes[-2] or op.lower()}/{op}"


def paths(nodes: Sequence[Named]) -> list[str]:
    """Return the path of each node; the loop that a node is inside of comes before it.

    A name may already begin with the loop's.

    Examples
    --------
    >>> paths([Named("/enc/LSTM", "LSTM", None, "a"), Named("/enc/LSTM_1", "LSTM", None, "b")])
    ['enc/layer_0', 'enc/layer_1']
    >>> paths([Named("", "GRU"), Named("decoder.rnn:0", "RNN"), Named("m/gru/while_loop", "Loop")])
    ['gru', 'decoder/rnn_0', 'm/gru']
    >>> paths([Named("/LSTM", "LSTM", None, "a"), Named("/LSTM_1", "LSTM", None, "b")])
    ['lstm/layer_0', 'lstm/layer_1']
    """
    found: list[str] = []
    owner: dict[str, tuple[str, str]] = {}
    for node, local in zip(nodes, _within_modules(nodes), strict=True):
        around = "" if node.within is None else f"{found[node.within]}/"
        wanted = local if local.startswith(around) else f"{around}{local}"
        path, count = wanted, 0
        while owner.setdefault(path, (node.op, node.weights)) != (node.op, node.weights):
            count += 1
            path = f"{wanted}_{count}"
        found.append(path)
    return found


def _within_modules(nodes: Sequence[Named]) -> list[str]:
    """Return paths from the names alone: modules, then operators or layers that share one."""
    modules = [_module(node) for node in nodes]
    inside: dict[str, list[Named]] = {}
    for node, module in zip(nodes, modules, strict=True):
        inside.setdefault(module, []).append(node)
    found = []
    for node, module in zip(nodes, modules, strict=True):
        if not module:
            found.append(node.op.lower())
            continue
        several = len({other.op for other in inside[module]}) > 1
        layers = list(dict.fromkeys(n.weights for n in inside[module] if n.op == node.op))
        parts = [module]
        parts += [node.op.lower()] if several else []
        parts += [f"layer_{layers.index(node.weights)}"] if len(layers) > 1 else []
        found.append("/".join(parts))
    return found


def _module(node: Named) -> str:
    """Return a node's name as a path, without the operator that exporters end it with."""
    parts = [re.sub(r"[^\w-]+", "_", part).strip("_") for part in re.split(r"[/.]+", node.name)]
    parts = [part for part in parts if part]
    ending = ENDINGS.get(node.op, node.op)
    if parts and re.fullmatch(rf"(node_)?({ending})(_+\d+)?", parts[-1]):
        parts.pop()
    itself = node.name.startswith("/")  # of PyTorch's model: it is the layer itself
    return "/".join(parts) or (node.op.lower() if itself else "")


def readable(names: Sequence[str]) -> list[str]:
    """Return names of carried values as names of variables, no two alike.

    TensorFlow's converter begins each with its loop's name.

    Examples
    --------
    >>> readable(["/loop/h.1", "h_1", "", "time"])
    ['loop_h_1', 'h_1', 'state_2', 'state_time']
    >>> readable(["model_gru_while_placeholder_2:0"])
    ['placeholder_2']
    """
    found: list[str] = []
    for k, name in enumerate(names):
        own = re.sub(r"^.*_while_(.+):0$", r"\1", name)
        clean = re.sub(r"\W+", "_", own).strip("_") or f"state_{k}"
        if clean in schema.RESERVED or clean.startswith(schema.INITIAL):
            clean = f"state_{clean}"
        while clean in found:
            clean += "_"
        found.append(clean)
    return found
