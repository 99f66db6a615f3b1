"""Recurrent stacks from tensors with PyTorch's names: which belong together, and whether they fit.

Names are those of ``torch.nn.LSTM``, ``GRU`` and ``RNN`` (``weight_ih_l0``,
``weight_hh_l0_reverse``, ``bias_ih_l1``, ``weight_hr_l0``) and of the single cells
(``weight_ih``), below any prefix. The family follows from the shape of ``weight_hh``: as many
blocks of rows as the family has gates (``torch/nn/modules/rnn.py``).
"""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from os import PathLike
from typing import Final

import numpy as np

from everystate.cells import GRU, LSTM, Cell, SimpleRNN
from everystate.errors import WeightsError
from everystate.frameworks.numpy.reading import WeightsFile, listed
from everystate.frameworks.numpy.stack import Stack, Stacks
from everystate.frameworks.numpy.stepping import Layer
from everystate.frameworks.numpy.tensors import PLACE, LayerTensors

_NAME: Final = re.compile(
    r"(?P<prefix>(?:.*\.)?)(?P<kind>weight_ih|weight_hh|weight_hr|bias_ih|bias_hh)"
    r"(?P<place>(?:_l\d+(?:_reverse)?)?)"
)
_NEARLY: Final = re.compile(r"(?P<prefix>(?:.*\.)?)(?:weight|bias)_.*")

_MODULES: Final[dict[type[Cell], str]] = {LSTM: "LSTM", GRU: "GRU", SimpleRNN: "RNN"}
NONLINEARITIES: Final = ("tanh", "relu")


def load(
    path: str | PathLike[str], *, batch_first: bool = True, nonlinearity: str | None = None
) -> Stacks:
    """Load the recurrent stacks of a ``.safetensors`` file, to run them on NumPy.

    Parameters
    ----------
    path : str or path
        The file. Its tensors have the names that PyTorch's ``state_dict()`` gives them.
    batch_first : bool
        Whether inputs and outputs are (batch, time, ...), as in a trace, or (time, batch, ...).
    nonlinearity : {"tanh", "relu"}, optional
        Of simple RNNs, which their weights do not show. None: what the file's metadata says
        under ``<name of the stack>.nonlinearity`` or ``nonlinearity``, else tanh.

    Returns
    -------
    Stacks
        A dict of `Stack` by name: ``encoder`` for ``encoder.weight_ih_l0``. A stack without
        a prefix is named after its class: ``lstm``, ``gru``, ``rnn``, ``lstmcell``.

    Raises
    ------
    WeightsError
        If the file cannot be read, holds no recurrent layer, or tensors of one are missing,
        misspelt, misshapen, of a dtype that is no floating one, or not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from safetensors.numpy import save_file
    >>> tensors = {"encoder.weight_ih_l0": np.ones((8, 3)), "encoder.weight_hh_l0": np.ones((8, 2))}
    >>> save_file(tensors, "weights.safetensors")
    >>> stacks = load("weights.safetensors")
    >>> stacks["encoder"]
    <Stack encoder: LSTM(3, 2)>
    >>> outputs, (h, c) = stacks["encoder"](np.ones((5, 7, 3)))
    >>> outputs.shape, c.shape
    ((5, 7, 2), (1, 5, 2))
    """
    file = WeightsFile(path)
    groups: dict[str, dict[str, dict[str, str]]] = {}
    for name in file.shapes:
        if found := _NAME.fullmatch(name):
            places = groups.setdefault(found["prefix"], {})
            places.setdefault(found["place"], {})[found["kind"]] = name
    if not groups:
        raise WeightsError(
            f"{file.path} holds no recurrent layer: expected PyTorch's names, such as "
            f"encoder.weight_ih_l0 and encoder.weight_hh_l0; it has {listed(file.shapes)}."
        )
    _refuse_strangers(file, groups)
    groups = {prefix: _in_order(file, prefix, places) for prefix, places in groups.items()}
    groups = dict(sorted(groups.items()))
    stacks = [_stack(file, *group, batch_first, nonlinearity) for group in groups.items()]
    if nonlinearity is not None and not any(isinstance(s.cell, SimpleRNN) for s in stacks):
        raise WeightsError(
            f"nonlinearity={nonlinearity!r} was given, but {file.path} holds no simple RNN: it has "
            f"{listed(stacks)}. Leave it out."
        )
    others = {name: shape for name, shape in file.shapes.items() if not _NAME.fullmatch(name)}
    return Stacks({stack.name: stack for stack in stacks}, file, others)


def _refuse_strangers(file: WeightsFile, groups: Mapping[str, object]) -> None:
    """Refuse what looks like a tensor of a stack but is none, lest it be left out in silence."""
    for name in file.shapes:
        near = _NEARLY.fullmatch(name)
        if near and near["prefix"] in groups and not _NAME.fullmatch(name):
            raise WeightsError(
                f"{file.path}: {name} lies among the tensors of a recurrent layer, but PyTorch has "
                "none of that name. Expected weight_ih, weight_hh, bias_ih, bias_hh or weight_hr, "
                "then _l<layer>, then perhaps _reverse. Rename it, or fold it into the weights."
            )


def _in_order(
    file: WeightsFile, prefix: str, places: dict[str, dict[str, str]]
) -> dict[str, dict[str, str]]:
    """Return the tensors' names place by place, in the order of PyTorch's ``h_n``."""
    if "" in places:
        expected = [""]
    else:
        matches = [found for place in places if (found := PLACE.fullmatch(place))]
        count = 1 + max(int(found["layer"]) for found in matches)
        ways = ("", "_reverse") if any(found["reverse"] for found in matches) else ("",)
        expected = [f"_l{layer}{way}" for layer in range(count) for way in ways]
    if surplus := [place for place in places if place not in expected]:
        raise WeightsError(
            f"{file.path}: {prefix}weight_ih is a single cell's, {prefix}weight_ih{surplus[0]} a "
            "stack's; expected either. Rename one of them."
        )
    kinds = {kind for names in places.values() for kind in names}
    for place in expected:
        for kind in sorted({*kinds, "weight_ih", "weight_hh"} | _both_biases(kinds)):
            if kind not in places.get(place, {}):
                raise WeightsError(_missing(file, prefix, kind, place))
    return {place: places[place] for place in expected}


def _both_biases(kinds: set[str]) -> set[str]:
    return {"bias_ih", "bias_hh"} if kinds & {"bias_ih", "bias_hh"} else set()


def _missing(file: WeightsFile, prefix: str, kind: str, place: str) -> str:
    name = f"{prefix}{kind}{place}"
    others = [n for n in file.shapes if n.startswith(prefix) and _NAME.fullmatch(n)]
    unknown = [n for n in file.shapes if n not in others]
    close = get_close_matches(name, unknown, n=1)
    hint = f"Is it {close[0]}? Rename that." if close else "Save the whole state_dict again."
    return (
        f"{file.path}: {name} is missing. Expected it beside {listed(others, 4)}: every layer and "
        f"direction of a stack has the same tensors, layers count from 0. {hint}"
    )


def _stack(
    file: WeightsFile,
    prefix: str,
    places: dict[str, dict[str, str]],
    batch_first: bool,
    nonlinearity: str | None,
) -> Stack:
    found = [LayerTensors(file, prefix, place, names) for place, names in places.items()]
    families = {tensors.name("weight_hh"): tensors.family for tensors in found}
    if len(set(families.values())) > 1:
        what = listed(f"{name} is of {_MODULES[family]}" for name, family in families.items())
        raise WeightsError(f"{file.path}: {what}; a stack has one kind.")
    family = found[0].family
    module = _MODULES[family] + ("" if found[0].place else "Cell")
    name = prefix.rstrip(".") or module.lower()
    dtype = np.result_type(*(a for tensors in found for a in tensors.arrays.values()))
    ways = 2 if any(tensors.reverse for tensors in found) else 1
    layers = [
        Layer(_path(name, tensors, len(found), ways), tensors.weights(dtype), tensors.reverse)
        for tensors in found
    ]
    levels = tuple(tuple(layers[k : k + ways]) for k in range(0, len(layers), ways))
    _check_levels(file, found, ways)
    attrs = {
        "module": module,
        "framework_gate_order": " ".join(family.gates),  # ours is PyTorch's: nothing is moved
        "weights_dtype": ", ".join(sorted({t.stored for t in found})),
    }
    cell = SimpleRNN(_nonlinearity(file, name, nonlinearity)) if family is SimpleRNN else family()
    return Stack(name, cell, levels, attrs, batch_first)


def _path(name: str, tensors: LayerTensors, layers: int, ways: int) -> str:
    parts = [name.replace(".", "/")]
    parts += [f"layer_{tensors.layer}"] if layers > ways else []
    parts += [("backward" if tensors.reverse else "forward")] if ways == 2 else []
    return "/".join(parts)


def _check_levels(file: WeightsFile, found: list[LayerTensors], ways: int) -> None:
    """Check that each layer has the first one's size and reads what the one below puts out."""
    first = found[0]
    out = first.arrays["weight_hh"].shape[1] * ways
    for tensors in found[1:]:
        R, R_0 = (t.arrays["weight_hh"].shape for t in (tensors, first))
        if R != R_0:
            raise WeightsError(
                f"{file.path}: {tensors.name('weight_hh')} has shape {R}, but "
                f"{first.name('weight_hh')} {R_0}; expected all layers of a stack to be alike."
            )
        reads = first.arrays["weight_ih"].shape[1] if tensors.layer == 0 else out
        if tensors.arrays["weight_ih"].shape[1] != reads:
            what = "layer 0 reads" if tensors.layer == 0 else f"layer {tensors.layer - 1} puts out"
            raise WeightsError(
                f"{file.path}: {tensors.name('weight_ih')} has shape "
                f"{tensors.arrays['weight_ih'].shape}, expected {reads} columns: as many values as "
                f"{what}."
            )


def _nonlinearity(file: WeightsFile, name: str, given: str | None) -> str:
    said = file.metadata.get(f"{name}.nonlinearity", file.metadata.get("nonlinearity", "tanh"))
    chosen = said if given is None else given
    if chosen not in NONLINEARITIES:
        raise WeightsError(
            f"{file.path}: nonlinearity {chosen!r} of {name}; expected tanh or relu."
        )
    return chosen
