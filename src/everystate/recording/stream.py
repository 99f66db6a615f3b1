"""How a framework module runs a model chunk by chunk: `Stream`, what its `stream` returns.

Optional: a framework module that offers ``stream(model) -> Stream`` lets `everystate.record`
cut long sequences by itself; without it, whoever records says how, by ``step=``.

Requirements on whoever builds one:

* ``step(chunk, None)`` begins with the state that the model itself begins with;
* ``step(chunk, state)`` goes on from the state that the call before returned. A state is any
  nesting of tuples, lists and dicts of arrays, numbers and None: it is stored to resume from;
* no gradients, and the model is left as it was after each call;
* a model that cannot be cut raises `UncuttableError`, from ``stream`` or from its first step.

Nothing need be proved: before a sequence is cut, a short beginning of it is run whole and in
pieces, and the states of every layer are compared. Only a bare layer that cannot be anything but
causal is `sure`, and spares that; each chunk of it is still replayed from the state that it began
with, and verified at every step, and a state that was not carried on is warned of.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

Step = Callable[[Any, Any], tuple[Any, Any]]
"""Takes a chunk, in the model's layout, and a state, None at first; returns output and state."""


@dataclass(frozen=True)
class Stream:
    """How to run a model chunk by chunk.

    Parameters
    ----------
    step : callable
        Runs one chunk.
    time_axis : callable
        Takes an input, or anything with its ``shape`` and ``dtype``; returns which axis is time.
    threads : callable
        Returns how many threads a step is spread over that *spin* while they wait for one another
        (OpenMP's do). A thread beside them that takes one of their cores makes all of them wait,
        so replay and writing go on beside the model only where there are cores left for them.
    sure : callable
        Takes an input. Where the model is nothing but a layer which its framework *defines* by a
        recurrence forwards in time, with nothing drawn at random, returns the bytes that a step
        takes of all its layers: what they are given, states and gates. Cutting it needs no trial
        then. None: a trial must tell.
    by : callable
        Takes a step that the user wrote and returns one whose states are seen, where calls that
        somebody else makes of the model are not.
    named : callable, optional
        Takes the name of an input, and the other inputs by their names; returns how to run the
        model on chunks of the one, given all of the others with each. None: its inputs have no
        names.
    call : callable, optional
        Runs the model once on the whole of what `step` takes in chunks. None: the framework
        module's own `call` does.
    undisturbed : callable
        Returns a block after which what the model itself keeps from call to call, states and
        random numbers, is what it was before.
    """

    step: Step
    time_axis: Callable[[Any], int]
    threads: Callable[[], int] = lambda: 1
    sure: Callable[[Any], float | None] = lambda x: None
    by: Callable[[Step], Step] = lambda step: step
    named: Callable[[str, Mapping[str, Any]], "Stream"] | None = None
    call: Callable[[Any], object] | None = None
    undisturbed: Callable[[], AbstractContextManager[Any]] = nullcontext
