"""`Reductions`: where recorded steps go to be made something small of."""

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import xarray as xr

from everystate.errors import SelectionError
from everystate.recording.replay import Recorded
from everystate.recording.trace import cell_attrs, leaf_path
from everystate.recording.warning import warn
from everystate.streaming.sink import Outline


class Reductions:
    """Makes something small of the steps: one reducer for each variable of each layer.

    Parameters
    ----------
    reduce : reducer, or several, or a mapping by name
        Each with ``update(block, first_step)``, the block of shape (time, batch, unit), and
        ``result() -> xarray.Dataset``; or a callable that returns one. One that has
        ``suits(variable, attrs) -> bool`` is told which variable it is for, and the attributes of
        the layer; if it returns False, the variable gets none.
    outline : Outline
        What is known of the recording.
    every : int
        How many steps each recorded one is apart from the next; a reducer whose ``update`` has
        no argument of that name can be fed every step only.
    """

    def __init__(self, reduce: Any, outline: Outline, every: int = 1) -> None:
        self.outline = outline
        self.makers = {name: _maker(name, given) for name, given in _named(reduce).items()}
        self.reducers: dict[tuple[str, str, str], Any] = {}
        self.attrs: dict[str, dict[str, Any]] = {}
        """Attributes of each layer that sum up all its steps, such as the largest errors."""
        self._apart = {"every": every} if every > 1 else {}

    def take(self, recorded: Recorded) -> None:
        """Update the reducers of one layer."""
        layer = leaf_path(recorded.path, self.outline.layers)
        self.attrs[layer] = attrs = cell_attrs(recorded.seen.cell) | dict(recorded.attrs)
        if recorded.steps.size:
            for variable, block in recorded.variables.items():
                self.update((layer, variable), block, int(recorded.steps[0]), attrs)

    def update(
        self, of: tuple[str, str], block: Any, first_step: int, attrs: Mapping[Any, Any]
    ) -> None:
        """Update the reducers of one variable, ``(layer, variable)``, of a layer with `attrs`."""
        for name in self.makers:
            key = *of, name
            if key not in self.reducers:
                self.reducers[key] = self._made(key, attrs)
            if self.reducers[key] is not None:
                self.reducers[key].update(block, first_step, **self._apart)

    def _made(self, key: tuple[str, str, str], attrs: Mapping[Any, Any]) -> Any | None:
        """Return a new reducer for a variable; None if its kind says nothing of it."""
        reducer = self.makers[key[2]]()
        suits = getattr(reducer, "suits", None)
        return reducer if suits is None or suits(key[1], attrs) else None

    @property
    def _fed(self) -> dict[tuple[str, str, str], Any]:
        return {key: reducer for key, reducer in self.reducers.items() if reducer is not None}

    def flush(self) -> None:
        """Do nothing: the results are always those of all steps."""

    def finish(self) -> None:
        """Warn of kinds of reducers that have no result, as none of the variables suits them."""
        seen = dict.fromkeys(f"{layer}/{variable}" for layer, variable, _ in self.reducers)
        of_use = {name for *_, name in self._fed}
        for name in [name for name in self.makers if seen and name not in of_use]:
            warn(
                f"reduce: {name} has no result, as it says nothing of {', '.join(seen)}. Record "
                "variables that it is for, or choose another reducer."
            )

    @property
    def described(self) -> dict[str, str]:
        """What each kind of reducer is, in words that are the same in another process."""
        return {name: _description(make()) for name, make in self.makers.items()}

    @property
    def forgetful(self) -> list[str]:
        """The kinds of reducers that cannot hand over what they hold, to go on from."""
        return [name for name, make in self.makers.items() if not _hands_over(make())]

    def state(self) -> dict[str, Any]:
        """Return what all reducers hold, to go on from."""
        held = [[*key, reducer.state()] for key, reducer in self._fed.items()]
        return {"reducers": held, "attrs": self.attrs}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.attrs = state["attrs"]
        for layer, variable, name, held in state["reducers"]:
            reducer = self._made((layer, variable, name), self.attrs[layer])
            assert reducer is not None
            reducer.restore(held)
            self.reducers[layer, variable, name] = reducer

    def result(self) -> xr.DataTree:
        """Return every reducer's result, at ``layer/variable/name``."""
        layers = {layer: xr.Dataset(attrs=attrs) for layer, attrs in self.attrs.items()}
        root = xr.Dataset(attrs={"model": self.outline.model})
        return xr.DataTree.from_dict({"/": root, **layers, **self.results()})

    def figures(self) -> dict[str, xr.Dataset]:
        """Return every reducer's result by its path, without labels where these can be left out."""
        return {
            "/".join(key): getattr(reducer, "figures", reducer.result)()
            for key, reducer in self._fed.items()
        }

    def results(self) -> dict[str, xr.Dataset]:
        """Return every reducer's result by its path."""
        return {"/".join(key): reducer.result() for key, reducer in self._fed.items()}


def _named(reduce: Any) -> Mapping[str, Any]:
    if isinstance(reduce, Mapping):
        return reduce
    alone = isinstance(reduce, str) or not isinstance(reduce, Iterable)
    several = [reduce] if alone else list(reduce)
    named = {}
    for given in several:
        if isinstance(given, str):
            raise SelectionError(
                f"reduce={given!r}: expected a reducer, not a name. Those that there are: from "
                "everystate.analysis.reducers import Moments, ... and reduce=[Moments()]."
            )
        kind = given if isinstance(given, type) else type(given)
        named[getattr(given, "__name__", kind.__name__).lower()] = given
    if len(named) < len(several):
        raise SelectionError("reduce= has several of one kind. Name them: reduce={'name': ...}.")
    return named


def _maker(name: str, given: Any) -> Callable[[], Any]:
    """Return what makes a new reducer of a kind, from a class, a function or an example."""
    if hasattr(given, "update") and not isinstance(given, type):
        return lambda: copy.deepcopy(given)
    if callable(given):
        made: Callable[[], Any] = given
        return made
    raise SelectionError(
        f"reduce={name!r} is a {type(given).__name__}: expected a reducer, which has "
        "update(block, first_step) and result(), or what makes one."
    )


def _hands_over(reducer: Any) -> bool:
    return callable(getattr(reducer, "state", None)) and hasattr(reducer, "restore")


def _description(reducer: Any) -> str:
    """Return a reducer's options, or where it says none, its class."""
    says_none = repr(reducer) == object.__repr__(reducer)
    return type(reducer).__qualname__ if says_none else repr(reducer)
