"""PyTorch's recurrent modules in float64: the oracles on a module's own weights, and its cells.

Two references that share no code with everystate: `stack` steps the NumPy equations of `oracles`
layer by layer, `by_cells` steps ``nn.LSTMCell`` and its kin by hand. A test imports it as
``import torch_reference``.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence

import oracles

ORDER = {"LSTM": "ifgo", "GRU": "rzn", "RNN": "h"}
"""Rows of the weights: the class docstrings in ``torch/nn/modules/rnn.py``."""
UNROLL = {"LSTM": oracles.lstm, "GRU": oracles.gru, "RNN": oracles.simple_rnn}
CELL = {"LSTM": nn.LSTMCell, "GRU": nn.GRUCell, "RNN": nn.RNNCell}

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}


def family(module: nn.Module) -> str:
    return next(name for name in ORDER if type(module).__name__.startswith(name))


def gates(module: nn.Module, suffix: str = "") -> dict[str, oracles.Gate]:
    """Return the oracle's gates of one layer and direction, or of a cell."""
    w = {name: p.detach().double().numpy() for name, p in module.named_parameters()}
    parts = [w.get(f"{n}{suffix}") for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    return oracles.gates(ORDER[family(module)], *parts)


def variants(module: nn.Module, suffix: str = "") -> dict[str, Any]:
    if family(module) == "RNN":
        return {"activation": module.nonlinearity}
    if getattr(module, "proj_size", 0):
        projection = getattr(module, f"weight_hr{suffix}")
        return {"projection": projection.detach().double().numpy()}
    return {}


def leaves(stack: nn.RNNBase) -> Iterator[tuple[int, bool, str, str]]:
    """Yield layer, whether backwards, the suffix of its weights, and its path below the module."""
    for layer in range(stack.num_layers):
        for backwards in (False, True) if stack.bidirectional else (False,):
            parts = [f"layer_{layer}"] * (stack.num_layers > 1)
            parts += ["backward" if backwards else "forward"] * stack.bidirectional
            yield layer, backwards, f"_l{layer}" + "_reverse" * backwards, "/".join(parts)


def stack(
    module: nn.RNNBase,
    x: np.ndarray,
    hx: Sequence[np.ndarray] | None = None,
    *,
    lengths: Sequence[int] | None = None,
    masks: Sequence[np.ndarray] = (),
    wrong: Mapping[str, dict[str, oracles.Gate]] | None = None,
) -> dict[str, tuple[oracles.Unrolled, dict[str, np.ndarray]]]:
    """Return what each layer and direction does, and the state it starts from, by leaf path.

    `x` is (time, batch, features), `hx` each (layers * directions, batch, units), `masks` what
    dropout multiplied each layer's output with; `wrong` gates replace a leaf's own.
    """
    names = ("h", "c") if family(module) == "LSTM" else ("h",)
    found, before, outputs = {}, np.asarray(x, np.float64), []
    for row, (layer, backwards, suffix, path) in enumerate(leaves(module)):
        sizes = {"h": module.proj_size or module.hidden_size, "c": module.hidden_size}
        start = {n: np.zeros((x.shape[1], sizes[n])) for n in names}
        if hx is not None:
            start = {n: np.asarray(s[row], np.float64) for n, s in zip(names, hx, strict=True)}
        own = (wrong or {}).get(path, gates(module, suffix))
        run = UNROLL[family(module)](
            before, start, own, lengths=lengths, reverse=backwards, **variants(module, suffix)
        )
        found[path] = (run, start)
        outputs.append(run.values["h"])
        if len(outputs) == 1 + module.bidirectional:
            before = np.nan_to_num(np.concatenate(outputs, -1))
            before = before * masks[layer] if layer < len(masks) else before
            outputs = []
    return found


def by_cells(
    module: nn.RNNBase,
    x: torch.Tensor,
    hx: Sequence[torch.Tensor],
    kept: dict[tuple[str, str, int], torch.Tensor] | None = None,
) -> dict[str, dict[str, torch.Tensor]]:
    """Return h (and c) of every layer and direction, stepping PyTorch's own cells; differentiable.

    `x` is (time, batch, features) and `hx` each (layers * directions, batch, units). The state of
    each step goes into `kept`, by path, name and step, and keeps its gradient.
    """
    found, before, outputs = {}, x, []
    for row, (_, backwards, suffix, path) in enumerate(leaves(module)):
        options = {"nonlinearity": module.nonlinearity} if family(module) == "RNN" else {}
        cell = CELL[family(module)](before.shape[-1], module.hidden_size, module.bias, **options)
        weights = {
            name: getattr(module, f"{name}{suffix}")
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")[: 4 if module.bias else 2]
        }
        state = tuple(s[row] for s in hx)
        state = state if family(module) == "LSTM" else state[0]
        steps = {}
        for t in reversed(range(len(x))) if backwards else range(len(x)):
            state = torch.func.functional_call(cell, weights, (before[t], state))
            steps[t] = state if isinstance(state, tuple) else (state,)
            for name, s in zip("hc", steps[t] if kept is not None else (), strict=False):
                s.retain_grad()
                kept[path, name, t] = s
        names = ("h", "c")[: len(steps[0])]
        found[path] = {
            n: torch.stack([steps[t][k] for t in range(len(x))]) for k, n in enumerate(names)
        }
        outputs.append(found[path]["h"])
        if len(outputs) == 1 + module.bidirectional:
            before, outputs = torch.cat(outputs, -1), []
    return found


def numpy(a: torch.Tensor) -> np.ndarray:
    return a.detach().double().numpy()


def values(leaf: Any) -> dict[str, np.ndarray]:
    """Return a leaf's variables as the oracle has them: (time, batch, unit)."""
    sequences = {n: v for n, v in leaf.data_vars.items() if "time" in v.dims}
    return {n: np.swapaxes(v.values, 0, 1) for n, v in sequences.items()}


def assert_leaf(
    leaf: Any,
    expected: tuple[oracles.Unrolled, Mapping[str, np.ndarray]],
    tolerance: float = 1e-10,
) -> None:
    """Assert that a leaf of a trace has every state and gate, and the initial states, right."""
    run, start = expected
    oracles.assert_close(values(leaf), run.values, tolerance)
    initial = {n: leaf[f"initial_{n}"].values for n in start}
    oracles.assert_close(initial, start, tolerance)


def randomise(module: nn.Module, seed: int = 0, scale: float = 0.6) -> nn.Module:
    """Give a module seeded weights that no two gates, units or features share."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            noise = torch.randn(p.shape, generator=generator, dtype=torch.float64)
            p.copy_((noise * scale).to(p.dtype))
    return module


def random(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def initial(
    module: nn.RNNBase, batch: int, seed: int = 7, dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, ...]:
    """Return a non-zero initial state, each (layers * directions, batch, units)."""
    rows = module.num_layers * (1 + module.bidirectional)
    sizes = [module.proj_size or module.hidden_size]
    sizes += [module.hidden_size] * (family(module) == "LSTM")
    return tuple(random(rows, batch, n, seed=seed + k, dtype=dtype) for k, n in enumerate(sizes))


def packed(x: torch.Tensor, lengths: Sequence[int]) -> PackedSequence:
    """Pack (time, batch, features), sorted by length or not."""
    in_order = list(lengths) == sorted(lengths, reverse=True)
    if in_order:
        return pack_padded_sequence(x, torch.tensor(lengths))
    return pack_sequence([x[:n, k] for k, n in enumerate(lengths)], enforce_sorted=False)
