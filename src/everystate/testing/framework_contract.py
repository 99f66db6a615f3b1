"""The contract of a framework module, as tests: subclass it beside the framework's own tests.

Not when the framework has more to promise than `everystate.recording.discovery.Framework`
says: its layers' options, its gradients, its odd models are the subclass's own business.
"""

from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

import everystate as es
from everystate import schema
from everystate.errors import UnknownLayerError

Arrays = Mapping[str, npt.NDArray[np.generic]]


class FrameworkContract:
    """Tests that every framework module must pass; pytest finds them in a subclass.

    Give `framework`, `model`, `inputs`, `expected`, and whatever of `results` and `state` the
    framework does otherwise. Use random weights, biases and data, and other sizes for time,
    batch, features and units: data in which two gates are alike prove nothing.

    Examples
    --------
    >>> class TestMyFramework(FrameworkContract):  # doctest: +SKIP
    ...     framework = everystate.frameworks.myframework
    ...     def model(self): return seeded_model()
    ...     def inputs(self): return (seeded_input(),)
    ...     def expected(self): return {"encoder/lstm": {"h": ..., "c": ..., "i": ...}}
    """

    framework: ModuleType
    """The module under test."""
    tolerance: float = 1e-4
    """Largest ``|ours - oracle| / (1 + |oracle|)``."""

    def model(self) -> Any:
        """Return a new model, each time with the same weights."""
        raise NotImplementedError

    def inputs(self) -> tuple[Any, ...]:
        """Return what to call the model with, as arrays of NumPy or the framework's own."""
        raise NotImplementedError

    def expected(self) -> Mapping[str, Arrays]:
        """Return, by leaf path, every state and gate as an independent float64 oracle has it.

        Each of shape (batch, time, units), NaN past a row's length; states before the first
        step as ``initial_h`` and so on, shape (batch, units).
        """
        raise NotImplementedError

    def results(self, model: Any) -> Sequence[npt.NDArray[np.generic]]:
        """Call the model as its user would, and return every array of its results."""
        return [np.asarray(self.framework.call(model, self.inputs()))]

    def state(self, model: Any) -> Any:
        """Return what recording must leave as it is, to be compared by ``==``: its hooks."""
        return sorted(vars(model)) if hasattr(model, "__dict__") else None

    def test_the_module_has_every_function_and_knows_its_models(self) -> None:
        """The names of the protocol, and a `matches` that never raises."""
        for name in ("matches", "layers", "observe", "call", "unroll"):
            assert callable(getattr(self.framework, name)), name
        assert self.framework.matches(self.model())
        for other in (None, 3, "model", object(), self.framework, type(self.model())):
            assert not self.framework.matches(other), other

    def test_layers_are_those_of_the_trace(self) -> None:
        """Each leaf's path is known before the model is called."""
        model = self.model()
        paths = [leaf.path.strip("/") for leaf in self._record(model).leaves]
        assert sorted(self.framework.layers(model)) == sorted(self.expected()) == sorted(paths)

    def test_states_and_gates_are_the_oracles(self) -> None:
        """Every variable, at every step, of every row and unit."""
        trace = self._record(self.model())
        for path, arrays in self.expected().items():
            assert set(trace[path].data_vars) == set(arrays), path
            for name, wanted in arrays.items():
                self._assert_close(f"{path}: {name}", trace[path][name].values, wanted)

    def test_the_trace_follows_the_schema(self) -> None:
        """Dimensions, coordinates and attributes that its readers rely on."""
        trace = self._record(self.model())
        assert trace.attrs[schema.SCHEMA_ATTR] == schema.SCHEMA_VERSION
        assert trace.attrs[schema.COMPLETE_ATTR] == 1
        for leaf in trace.leaves:
            assert leaf.attrs["direction"] in ("forward", "backward"), leaf.path
            assert {schema.BATCH, schema.TIME} <= set(leaf.coords), leaf.path
            for name, variable in leaf.data_vars.items():
                initial = str(name).startswith(schema.INITIAL)
                before = (schema.BATCH,) if initial else (schema.BATCH, schema.TIME)
                assert variable.dims[:-1] == before, f"{leaf.path}: {name}"
                assert variable.attrs["origin"] in (schema.OBSERVED, schema.REPLAYED)
                assert {"long_name", "units"} <= set(variable.attrs), f"{leaf.path}: {name}"

    def test_what_was_replayed_was_verified(self) -> None:
        """A leaf with a replayed variable says how large the error was, and it was small."""
        for leaf in self._record(self.model()).leaves:
            origins = {variable.attrs["origin"] for variable in leaf.data_vars.values()}
            if schema.REPLAYED in origins:
                assert 0.0 <= leaf.attrs["max_error_h"] <= leaf.attrs["tolerance"], leaf.path
                assert leaf.attrs["weights_sha256"], leaf.path

    def test_results_are_bitwise_the_same_within_and_after(self) -> None:
        """Recording changes no bit of what the model returns."""
        model = self.model()
        before = self.results(model)
        with es.recording(model) as recorder:
            within = self.results(model)
        assert recorder.trace.leaves
        for a, b, c in zip(before, within, self.results(model), strict=True):
            np.testing.assert_array_equal(a, b)
            np.testing.assert_array_equal(a, c)

    def test_the_model_is_left_as_it_was(self) -> None:
        """After a block, after an exception in one, and after `record`."""
        model = self.model()
        before = self.state(model)
        with es.recording(model):
            self.results(model)
        assert self.state(model) == before
        try:
            with es.recording(model) as recorder:
                self.results(model)
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            assert recorder.trace.leaves
        assert self.state(model) == before
        self._record(model)
        assert self.state(model) == before

    def test_a_selection_is_a_part_of_the_whole(self) -> None:
        """One layer, one variable, some units, every second step of a window."""
        model, whole = self.model(), self._record(self.model())
        for path, arrays in self.expected().items():
            name = [name for name in arrays if not name.startswith(schema.INITIAL)][-1]
            part = self._record(
                model, select=es.Select(path, name, units=[1, 0], every=2, window=(1, None))
            )
            assert [leaf.path for leaf in part.leaves] == [f"/{path}"]
            chosen = part[path][name]
            wanted = whole[path][name].isel(time=slice(1, None, 2))
            wanted = wanted.isel({wanted.dims[-1]: [1, 0]})
            xr.testing.assert_allclose(chosen, wanted, rtol=self.tolerance, atol=self.tolerance)

    def test_an_unknown_layer_is_refused(self) -> None:
        """The message lists the layers that there are."""
        message = _message_of(lambda: self._record(self.model(), select=es.Select("no such layer")))
        assert all(path in message for path in self.expected()), message

    def _record(self, model: Any, **options: Any) -> xr.DataTree:
        return es.record(model, *self.inputs(), **options)

    def _assert_close(self, what: str, ours: Any, wanted: Any) -> None:
        assert ours.shape == wanted.shape, f"{what}: shape {ours.shape}, expected {wanted.shape}"
        error = np.abs(ours - wanted) / (1.0 + np.abs(wanted))
        assert np.array_equal(np.isnan(ours), np.isnan(wanted)), f"{what}: NaN in other places"
        worst = float(np.nanmax(error))
        assert worst <= self.tolerance, f"{what}: scaled error {worst:.2g}"


def _message_of(call: Callable[[], object]) -> str:
    try:
        call()
    except UnknownLayerError as error:
        return str(error)
    raise AssertionError("an unknown layer was not refused")
