"""The four ways to run TensorFlow, as one fixture, and TF 1 cells with given weights."""

import os
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import numpy as np
import pytest

import oracles
from cases import Case

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

MODES = ("v1", "v2", "function", "eager")
Weights = list[tuple[Any, np.ndarray]]


def _tf() -> Any:
    """TensorFlow, once a test needs it: the test files say what happens where it is missing."""
    return import_module("tensorflow")


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    _tf().get_logger().setLevel("ERROR")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*rnn_cell.*|.*layer.updates.*")
        yield


@pytest.fixture(params=MODES)
def run(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """``run(cells, build, *arrays)``: values of what ``build(*tensors)`` returns.

    `cells` are pairs of a cell and its `Case`; their variables get the case's weights.
    """
    yield {"v1": _in_graph, "v2": _in_graph, "function": _in_function, "eager": _eagerly}[
        request.param
    ]
    _control_flow(v2=True)


@pytest.fixture(autouse=True)
def _control_flow_in_force(request: pytest.FixtureRequest) -> Iterator[None]:
    mode = request.node.callspec.params.get("run") if hasattr(request.node, "callspec") else None
    _control_flow(v2=mode != "v1")
    yield
    _control_flow(v2=True)


def _control_flow(*, v2: bool) -> None:
    """Switch what ``disable_v2_behavior`` does of a graph: its loops, and what a shape holds."""
    v1 = _tf().compat.v1
    (v1.enable_control_flow_v2 if v2 else v1.disable_control_flow_v2)()
    (v1.enable_v2_tensorshape if v2 else v1.disable_v2_tensorshape)()


def _in_graph(cells: Any, build: Callable[..., Any], *arrays: np.ndarray) -> Any:
    with _tf().Graph().as_default():
        # Batch and time unknown beforehand, as in most graphs.
        tensors = [
            _tf().compat.v1.placeholder(
                a.dtype, [None, None, *a.shape[2:]] if a.ndim > 2 else [None]
            )
            for a in arrays
        ]
        found = build(*tensors)
        with _tf().compat.v1.Session() as session:
            session.run(_tf().compat.v1.global_variables_initializer())
            for cell, case in cells:
                for variable, value in weights_of(cell, case):
                    variable.load(value, session)
            return session.run(found, dict(zip(tensors, arrays, strict=True)))


def _eagerly(cells: Any, build: Callable[..., Any], *arrays: np.ndarray) -> Any:
    tensors = [_tf().constant(a) for a in arrays]
    build(*tensors)  # creates the variables
    for cell, case in cells:
        for variable, value in weights_of(cell, case):
            variable.assign(value)
    return _tf().nest.map_structure(np.asarray, build(*tensors))


def _in_function(cells: Any, build: Callable[..., Any], *arrays: np.ndarray) -> Any:
    _eagerly(cells, build, *arrays)  # a cell with peepholes cannot be built within a function
    found = _tf().function(build)(*[_tf().constant(a) for a in arrays])
    return _tf().nest.map_structure(np.asarray, found)


def weights_of(cell: Any, case: Case | None) -> Weights:
    """Return each variable of a TF 1 cell with the value that the case gives it."""
    if case is None:
        return []

    def kernel(order: str) -> tuple[np.ndarray, np.ndarray]:
        w = oracles.stacked(case.gates, order)
        return np.concatenate([w["W"], w["R"]], axis=1).T, w["b"] + w["b_R"]

    if case.family == "lstm":
        found = list(zip((cell._kernel, cell._bias), kernel("igfo"), strict=True))
        if case.peephole is not None:
            found += [(getattr(cell, f"_w_{k}_diag"), case.peephole[k]) for k in "ifo"]
        if case.projection is not None:
            found.append((cell._proj_kernel, case.projection.T))
        return found
    if case.family == "gru":
        gates = zip((cell._gate_kernel, cell._gate_bias), kernel("rz"), strict=True)
        candidate = (cell._candidate_kernel, cell._candidate_bias)
        return [*gates, *zip(candidate, kernel("n"), strict=True)]
    return list(zip((cell._kernel, cell._bias), kernel("h"), strict=True))


@pytest.fixture
def tf_cell() -> Callable[[Case], Any]:
    """Return a TF 1 cell in float64 with the variants of a case."""

    rnn_cell = import_module("everystate.frameworks.tensorflow.rnn_cell")

    def make(case: Case, **options: Any) -> Any:
        units = next(iter(case.gates.values())).W.shape[0]
        if case.family == "gru":
            return rnn_cell.GRUCell(units, dtype=_tf().float64, **options)
        if case.family == "simple_rnn":
            return rnn_cell.BasicRNNCell(units, dtype=_tf().float64, **options)
        return rnn_cell.LSTMCell(
            units,
            use_peepholes=case.peephole is not None,
            num_proj=None if case.projection is None else case.projection.shape[0],
            cell_clip=case.variants.get("cell_clip"),
            proj_clip=case.variants.get("projection_clip"),
            forget_bias=case.variants.get("forget_bias", 0.0),
            dtype=_tf().float64,
            **options,
        )

    return make


@pytest.fixture
def load() -> Callable[..., None]:
    """Give cells the weights of their cases: eagerly, or in a session."""

    def give(cells: Any, given: list[Case], session: Any = None) -> None:
        for cell, case in zip(cells, given, strict=True):
            for variable, value in weights_of(cell, case):
                variable.assign(value) if session is None else variable.load(value, session)

    return give
