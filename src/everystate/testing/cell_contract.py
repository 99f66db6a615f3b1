"""The contract of a cell, as tests: subclass it beside the cell's own tests.

For cells of `everystate.cells`, whose gates are replayed. A step of one's own in a framework,
which is only observed, needs none of this: it names its states (`everystate.recording.custom`).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib.util import find_spec
from itertools import combinations
from operator import itemgetter
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt
import pytest

from everystate import schema
from everystate.cells import Cell, Weights
from everystate.errors import ReplayMismatchError, WeightsError
from everystate.recording.observation import Observation, turn
from everystate.recording.replay import Recorded, replay
from everystate.recording.selection import Select

Tensor = npt.NDArray[Any]
Arrays = Mapping[str, Tensor]
Asarray = Callable[[Tensor], Any]

LIBRARIES: Final[Mapping[str, str]] = {"numpy": "numpy", "torch": "torch", "jax": "jax.numpy"}
"""Libraries whose arrays a cell takes, and the module that makes them."""
TOO_ALIKE: Final = 1e-3
"""Scaled difference that a fault must make: data in which it makes less prove nothing."""


class CellContract:
    """Tests that every cell must pass; pytest finds them in a subclass.

    Give `cell` and `oracle`; and `weights`, `inputs`, `initial` where those here do not do: they
    are random, no size is that of another, no bias is zero.

    Examples
    --------
    >>> class TestMyCell(CellContract):  # doctest: +SKIP
    ...     cell = MyCell()
    ...     def oracle(self, w, x, state):
    ...         f = sigmoid(w["W"] @ x + w["b"] + w["R"] @ state["h"])
    ...         return {"h": f * state["h"], "f": f}
    """

    cell: Cell
    """The cell under test."""
    sizes: ClassVar[tuple[int, int, int, int]] = (7, 3, 4, 5)
    """Steps, rows, features, units."""
    tolerance: float = 1e-11
    """Largest ``|ours - oracle| / (1 + |oracle|)`` in float64."""

    def oracle(self, w: Arrays, x: Tensor, state: Arrays) -> Arrays:
        """Return every state and gate after one step of one row, from the equations alone.

        Parameters
        ----------
        w : mapping
            Each field that `weights` has, in float64.
        x : ndarray, shape (features,)
            The input of the step.
        state : mapping
            Each state before it, shape (units,).
        """
        raise NotImplementedError

    def weights(self) -> Weights:
        """Return weights, float64."""
        rng = np.random.default_rng(0)
        _, _, features, units = self.sizes
        rows = self.cell.blocks * units
        return Weights(
            W=rng.normal(0, 0.8, (rows, features)),
            R=rng.normal(0, 0.8, (rows, units)),
            b=rng.normal(0, 0.8, rows),
            b_R=rng.normal(0, 0.8, rows),
        )

    def inputs(self) -> Tensor:
        """Return the input, float64, (time, batch, features)."""
        steps, batch, features, _ = self.sizes
        return np.random.default_rng(1).normal(0, 1, (steps, batch, features))

    def initial(self) -> Arrays:
        """Return each state before the first step, float64, (batch, units)."""
        rng, w = np.random.default_rng(2), self.weights()
        sizes = {schema.H: w.R.shape[1]}
        units = self.cell.units(w)
        return {
            name: rng.normal(0, 0.7, (self.sizes[1], sizes.get(name, units)))
            for name in self.cell.states
        }

    def test_names(self) -> None:
        """``h`` first; no name twice; what is scanned for is a state that ``h`` does not show."""
        cell = self.cell
        assert cell.states[0] == schema.H
        assert len({*cell.variables}) == len(cell.variables)
        assert set(cell.memory) <= {*cell.states} - {schema.H}
        assert hash(cell) == hash(replace(cell)), "a cell is a frozen dataclass"

    def test_steps_are_the_oracles(self) -> None:
        """Each step from the state after the one before, in every library that is installed."""
        for name, asarray in _libraries():
            assert_close(self.stepped(asarray), self.expected(), self.tolerance, name)

    def test_all_steps_at_once_are_the_oracles(self) -> None:
        """As in a replay: ``h`` before each step is known, `memory` before the first one."""
        for name, asarray in _libraries():
            assert_close(self.evolved(asarray), self.expected(), self.tolerance, name)

    def test_some_units_alone_are_as_among_all(self) -> None:
        """Where the cell says that its units can be evolved apart."""
        w = self.weights()
        if not self.cell.unit_wise or w.projection is not None:
            return
        units = np.array([3, 1])
        part = {name: a[..., units] for name, a in self.expected().items()}
        assert_close(self.evolved(units=units), part, self.tolerance, "units 3 and 1")

    def test_gates_ahead_are_the_gates(self) -> None:
        """What `Cell.gates_at` returns, if anything, is what `Cell.evolve` does."""
        found = self.evolved(ahead=True)
        expected = {name: a for name, a in self.expected().items() if name in found}
        assert_close(found, expected, self.tolerance, "gates ahead")

    def test_a_replay_is_verified_both_ways(self) -> None:
        """Forwards and backwards: what was hidden is the oracle's, and the error was small."""
        for reverse in (False, True):
            expected = self.expected(reverse=reverse)
            recorded = self.replayed(expected, reverse)
            assert_close(recorded.variables, expected, self.tolerance, f"reverse={reverse}")
            hidden = [name for name in self.cell.variables if name != schema.H]
            assert all(recorded.origins[name] == schema.REPLAYED for name in hidden)
            if hidden:
                error, tolerance = (recorded.attrs[n] for n in ("max_error_h", "tolerance"))
                assert float(error) <= float(tolerance)

    def test_a_wrong_output_is_refused(self) -> None:
        """A replay of a layer whose ``h`` is not the cell's raises `ReplayMismatchError`."""
        if self.cell.variables == (schema.H,):
            return  # nothing is hidden, so nothing is replayed
        expected = self.expected()
        for fault, h in {
            "shifted by a step": np.roll(expected[schema.H], 1, axis=0),
            "one value off": expected[schema.H] + _spike(expected[schema.H].shape),
        }.items():
            try:
                self.replayed({**expected, schema.H: h}, reverse=False)
            except ReplayMismatchError:
                continue
            raise AssertionError(f"h {fault}, and the replay did not notice")

    def test_faults_in_the_weights_are_noticed(self) -> None:
        """The comparison with the oracle fails for gates swapped, biases and units mixed up.

        If one is not noticed, the data cannot tell it, or the cell does not use the weights.
        """
        right = self.expected()
        for fault, w in self.faults():
            wrong = self.evolved(weights=w)
            worst = max(float(_error(wrong[name], a).max()) for name, a in right.items())
            assert worst > TOO_ALIKE, f"not noticed: {fault}"

    def test_misshapen_weights_are_refused(self) -> None:
        """By name and with the path: every field with a row too many, and W of another rank."""
        w = self.weights()
        self.cell.check(w, "layer")
        for name, array in w.items():
            longer = np.concatenate([array, array[:1]])
            with pytest.raises(WeightsError, match="layer: "):
                self.cell.check(replace(w, **{name: longer}), "layer")
        with pytest.raises(WeightsError, match="layer: W has shape"):
            self.cell.check(replace(w, W=w.W[0]), "layer")

    def test_the_dtype_stays(self) -> None:
        """Float32 in, float32 out, of every variable."""
        found = self.stepped(lambda a: np.asarray(a, np.float32))
        assert {str(a.dtype) for a in found.values()} == {"float32"}

    def faults(self) -> Iterator[tuple[str, Weights]]:
        """Yield wrong weights, each of which must change what the cell does."""
        w = self.weights()
        for a, b in combinations(range(self.cell.blocks), 2):
            order = [{a: b, b: a}.get(k, k) for k in range(self.cell.blocks)]
            names = f"{self.cell.gates[a]} and {self.cell.gates[b]}"
            yield f"gates {names} swapped", self.cell.by_block(w, itemgetter(np.array(order)))
        for name, array in w.items():
            if name in ("b", "b_R", "peephole"):
                yield f"{name} left out", replace(w, **{name: None})
            yield (
                f"{name} turned along its last axis",
                replace(w, **{name: array[..., ::-1].copy()}),
            )

    def expected(self, *, reverse: bool = False) -> dict[str, Tensor]:
        """Return what the oracle makes of the sequence, (time, batch, units)."""
        w = {name: np.asarray(a, np.float64) for name, a in self.weights().items()}
        x = self.inputs()[::-1] if reverse else self.inputs()
        rows = []
        for row in range(x.shape[1]):
            state = {name: a[row] for name, a in self.initial().items()}
            steps = []
            for x_t in x[:, row]:
                steps.append(self.oracle(w, x_t, state))
                state = {name: steps[-1][name] for name in self.cell.states}
            rows.append({n: np.stack([s[n] for s in steps]) for n in self.cell.variables})
        found = {n: np.stack([row[n] for row in rows], axis=1) for n in self.cell.variables}
        return {n: turn(a, None) for n, a in found.items()} if reverse else found

    def stepped(self, asarray: Asarray = np.asarray) -> dict[str, Any]:
        """Return what `Cell.step` makes of the sequence."""
        w = _weights(self.weights(), asarray)
        a_x = self.cell.from_input(w, asarray(self.inputs()))
        state: dict[str, Any] = {name: asarray(a) for name, a in self.initial().items()}
        steps = []
        for t in range(self.sizes[0]):
            steps.append(self.cell.step(w, a_x[t], state))
            state = {name: steps[-1][name] for name in self.cell.states}
        return {n: np.stack([np.asarray(s[n]) for s in steps]) for n in self.cell.variables}

    def evolved(
        self,
        asarray: Asarray = np.asarray,
        *,
        weights: Weights | None = None,
        units: Tensor | None = None,
        ahead: bool = False,
    ) -> dict[str, Any]:
        """Return what `Cell.evolve` makes of the sequence, whose ``h`` is the oracle's.

        Or, `ahead`, what `Cell.gates_at` makes of it.
        """
        w = _weights(self.weights() if weights is None else weights, asarray)
        initial, h = self.initial(), self.expected()[schema.H]
        h = asarray(np.concatenate([initial[schema.H][None], h[:-1]]))
        before = {name: asarray(initial[name]) for name in self.cell.memory}
        before[schema.H] = h
        if units is not None:
            before = {name: a[..., units] for name, a in before.items()}
            w = self.cell.take_units(w, units)
        a_x, a_h = self.cell.from_input(w, asarray(self.inputs())), self.cell.from_state(w, h)
        if ahead:
            found = self.cell.gates_at(w, a_x + a_h) or {}
        else:
            found = self.cell.evolve(w, a_x, a_h, before)
        return {n: np.asarray(a) for n, a in found.items()}

    def replayed(self, shown: Arrays, reverse: bool) -> Recorded:
        """Record a layer of this cell that shows its ``h`` alone."""
        last = 0 if reverse else -1
        seen = Observation(
            path="layer",
            observed={schema.H: shown[schema.H]},
            initial=self.initial(),
            final={name: shown[name][last] for name in self.cell.states},
            inputs=self.inputs(),
            cell=self.cell,
            weights=self.weights(),
            reverse=reverse,
            precision="float64",
        )
        return replay(seen, Select().plan(seen))


def assert_close(ours: Mapping[str, Any], wanted: Arrays, tolerance: float, what: str) -> None:
    """Assert that every variable is there, of the same shape, and close in every element."""
    assert set(ours) == set(wanted), f"{what}: got {sorted(ours)}, expected {sorted(wanted)}"
    for name, expected in wanted.items():
        got = np.asarray(ours[name])
        assert got.shape == expected.shape, f"{what}: {name} is {got.shape}, not {expected.shape}"
        worst = float(_error(got, expected).max())
        assert worst <= tolerance, f"{what}: {name}: scaled error {worst:.2g}"


def _error(ours: Any, wanted: Any) -> Any:
    return np.abs(ours - wanted) / (1.0 + np.abs(wanted))


def _spike(shape: tuple[int, ...]) -> Tensor:
    """Return zeros with 0.01 in one place."""
    array = np.zeros(shape)
    array[tuple(size // 2 for size in shape)] = 0.01
    return array


def _weights(w: Weights, asarray: Asarray) -> Weights:
    return Weights(**{name: asarray(a) for name, a in w.items()})


def _libraries() -> Iterator[tuple[str, Asarray]]:
    """Yield the libraries that are installed, and how to make their arrays in float64."""
    yield "numpy", np.asarray
    if find_spec("torch") is not None:
        torch = pytest.importorskip("torch")
        yield "torch", torch.from_numpy
    if find_spec("jax") is not None:
        jax = pytest.importorskip("jax")
        with jax.enable_x64(True):
            yield "jax", jax.numpy.asarray
