"""What one run of a layer's loop showed, as `Observation`s."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from keras import layers, tree

from everystate.errors import ReplayMismatchError
from everystate.frameworks.keras.backend import (
    Tensor,
    computed_in,
    flat,
    native,
    stacked,
    time_major,
)
from everystate.frameworks.keras.finding import leaves
from everystate.frameworks.keras.kinds import (
    OUTPUT,
    equations,
    kind_of,
    state_names,
    weights_of,
)
from everystate.frameworks.keras.masks import Valid, valid_steps
from everystate.frameworks.keras.overhearing import Heard, as_the_equations
from everystate.frameworks.keras.stepping import Leaf, cells_of, stepped
from everystate.recording.observation import Observation
from everystate.recording.stretches import in_processing_order
from everystate.recording.verify import TOLERANCE

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Run:
    """One run of a layer's loop: what it was given and what it returned.

    Parameters
    ----------
    path : str
        The layer's path.
    layer : keras.layers.RNN
        The layer.
    sequences, initial_state, mask, training
        As ``inner_loop`` takes them.
    outputs, final : tensor, nested structure of tensors
        Every output, in order of processing, and the last state.
    """

    path: str
    layer: layers.RNN
    sequences: Tensor
    initial_state: Any
    mask: Any
    training: bool
    outputs: Tensor
    final: Any

    def replayed(self, heard: Heard) -> Iterator[Observation]:
        """Yield the observation of a cell whose states and gates follow from its outputs.

        Parameters
        ----------
        heard : dict
            What the loop let be overheard of them; may be empty.
        """
        cell, reverse, valid = self.layer.cell, self.layer.go_backwards, valid_steps(self.mask)
        names = state_names(cell, 0)
        initial = dict(zip(names, map(flat, tree.flatten(self.initial_state)), strict=True))
        shown = {"h": time_major(self.outputs), **{n: stacked(a) for n, a in heard.items()}}
        shown = {n: a[::-1] if reverse else a for n, a in shown.items()}
        if valid is not None:
            shown = {"h": valid.carried(shown["h"], initial["h"], reverse)}
        dropped = _dropout_mask(cell) if self.training else None
        seen = Observation(
            path=self.path,
            observed={name: native(a) for name, a in shown.items()},
            initial={name: native(a) for name, a in initial.items()},
            final={
                n: native(flat(a)) for n, a in zip(names, tree.flatten(self.final), strict=True)
            },
            inputs=native(
                time_major(self.sequences if dropped is None else self.sequences * dropped)
            ),
            cell=equations(cell),
            weights=weights_of(cell),
            hints=() if dropped is None else ("dropout of the inputs was active",),
            **self._common(cell, valid),
        )
        if heard and not as_the_equations(in_processing_order(seen)):
            seen = replace(seen, observed={"h": seen.observed["h"]})
        yield seen

    def shown(self) -> Iterator[Observation]:
        """Run the loop again, so that each step shows all, and yield what it showed.

        Raises
        ------
        ReplayMismatchError
            If it does not end as the layer's own run did.
        """
        mask = next((m for m in tree.flatten(self.mask) if m is not None), None)
        outputs, final, found = stepped(
            self.layer, self.sequences, self.initial_state, mask, self.training
        )
        valid, cells = valid_steps(self.mask), cells_of(self.layer)
        self._check_alike(outputs, final, valid)
        starts = self.initial_state if len(found) > 1 else [self.initial_state]
        x = time_major(self.sequences)
        for k, (path, cell) in enumerate(zip(leaves(self.path, self.layer), cells, strict=True)):
            initial, names = (
                tree.flatten(starts[k]),
                state_names(cell, len(tree.flatten(starts[k]))),
            )
            yield Observation(
                path=path,
                observed=without_repeated({n: time_major(a) for n, a in found[k].items()}),
                initial=dict(zip(names, map(flat, initial), strict=True)),
                inputs=None if k else x,
                cell=equations(cell),
                **self._common(cell, valid, found[k]),
            )

    def _common(self, cell: Any, valid: Valid | None, leaf: Leaf | None = None) -> dict[str, Any]:
        kind = kind_of(cell)
        attrs = {
            "module": type(self.layer).__name__,
            "cell": type(cell).__name__.removesuffix("Cell"),
            "framework_gate_order": kind.order if kind else "",
        }
        first = next(iter((leaf or {}).values()), None)
        if first is not None and len(first.shape) > 3:
            attrs["unit_shape"] = ", ".join(map(str, first.shape[2:]))
        return {
            "lengths": None if valid is None else valid.lengths,
            "skipped": None if valid is None else valid.skipped,
            "reverse": self.layer.go_backwards,
            "precision": computed_in(self.layer.compute_dtype),
            "attrs": attrs,
        }

    def _check_alike(self, outputs: Tensor, final: Any, valid: Valid | None) -> None:
        """Check that the second run came out as the first, at every step that counts."""
        pairs = [
            (flat(a), flat(b)) for a, b in zip(*map(tree.flatten, (self.final, final)), strict=True)
        ]
        a, b = time_major(self.outputs), time_major(outputs)
        if valid is not None:
            worked = valid.worked[::-1] if self.layer.go_backwards else valid.worked
            a, b = a[worked], b[worked]
        limit = TOLERANCE.get(computed_in(self.layer.compute_dtype), TOLERANCE["float32"])
        worst = max(_error(*pair) for pair in [(a, b), *pairs])
        if worst > limit:
            raise ReplayMismatchError(
                f"{self.path}: run again so that each step shows its states, the layer came out "
                f"otherwise: scaled error {worst:.2g}, expected at most {limit:g}. Does its cell, "
                f"{type(self.layer.cell).__name__}, draw random numbers of its own, or count its "
                "calls, or is inner_loop changed? Nothing of this layer was stored."
            )


def _error(a: Array, b: Array) -> float:
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        error = np.where(same, 0.0, np.abs(a - b) / (1.0 + np.abs(a)))
    return float(np.nan_to_num(error, nan=np.inf).max(initial=0.0))


def _dropout_mask(cell: Any) -> Tensor | None:
    """Return what the cell multiplied each input by, for the call that is going on."""
    mask = getattr(cell, "_dropout_mask", None)
    return None if mask is None or not cell.dropout else mask[:, None, :]


def without_repeated(found: Mapping[str, Array]) -> dict[str, Array]:
    """Leave out a cell's output where it is one of its states."""
    kept = dict(found)
    output = kept.pop(OUTPUT, None)
    if output is not None and not any(
        np.array_equal(output, a, equal_nan=True) for a in kept.values()
    ):
        kept[OUTPUT] = output
    return kept
