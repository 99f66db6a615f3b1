"""Every state of every recurrent network, at every step, from the model you already have."""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from everystate import errors as errors
    from everystate import scale as scale
    from everystate.analysis.compare import compare as compare
    from everystate.analysis.diagnose import diagnose as diagnose
    from everystate.recording.selection import Select as Select
    from everystate.storage import open_reductions as open_reductions
    from everystate.storage import open_trace as open_trace
    from everystate.storage import save_epoch as save_epoch
    from everystate.storage import save_trace as save_trace
    from everystate.streaming.around import Around as Around
    from everystate.streaming.verbs import record as record
    from everystate.streaming.verbs import recording as recording
    from everystate.streaming.verbs import unroll as unroll
    from everystate.views import plot as plot
    from everystate.views.explorer.serve import explore as explore
    from everystate.views.report import report as report
    from everystate.views.summary import summary as summary

_PUBLIC = {
    "Around": "everystate.streaming.around",
    "Select": "everystate.recording.selection",
    "compare": "everystate.analysis.compare",
    "diagnose": "everystate.analysis.diagnose",
    "explore": "everystate.views.explorer.serve",
    "open_reductions": "everystate.storage",
    "open_trace": "everystate.storage",
    "record": "everystate.streaming.verbs",
    "recording": "everystate.streaming.verbs",
    "report": "everystate.views.report",
    "save_epoch": "everystate.storage",
    "save_trace": "everystate.storage",
    "summary": "everystate.views.summary",
    "unroll": "everystate.streaming.verbs",
}

__all__ = [
    "Around",
    "Select",
    "compare",
    "diagnose",
    "explore",
    "open_reductions",
    "open_trace",
    "record",
    "recording",
    "report",
    "save_epoch",
    "save_trace",
    "summary",
    "unroll",
]


_PARTS = {
    "errors": "everystate.errors",
    "plot": "everystate.views.plot",
    "scale": "everystate.scale",
}
"""Modules that are public as a whole, and imported when they are first used."""


def __getattr__(name: str) -> Any:
    if name in _PARTS:
        return import_module(_PARTS[name])
    if name not in _PUBLIC:
        # With name and obj Python says which one may be meant.
        raise AttributeError(
            f"module 'everystate' has no attribute {name!r}", name=name, obj=sys.modules[__name__]
        )
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*(name for name in globals() if name.startswith("__")), *_PUBLIC, *_PARTS})


class _Package(ModuleType):
    def __setattr__(self, name: str, value: object) -> None:
        # Importing the folder `recording` would bind it in place of the public `recording`.
        if not (name in _PUBLIC and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
