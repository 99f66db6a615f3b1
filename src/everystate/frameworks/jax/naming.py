"""Names of scans and of what they carry, from JAX's name stack and the function's arguments."""

import re
from collections.abc import Sequence
from typing import Final

from everystate import schema
from everystate.recording.custom import distinct

_PART: Final = re.compile(r"""\[['"]?([^\]'"]*)['"]?\]|\.([^.\[]+)""")


def state_names(arguments: Sequence[str]) -> tuple[str, ...]:
    """Return what to call the states that a scan carries.

    The body's own names are kept: of a carry ``state`` that is a dict ``{"v": ..., "w": ...}``
    they are v and w; of a pair, state_0 and state_1; of an array, what the argument is called.
    A name that means something else in a trace is told apart: ``time`` becomes ``state_time``.

    Parameters
    ----------
    arguments : sequence of str
        The carried arguments as the body has them: ``state['v']``, ``carry[0]``, ``h``.

    Examples
    --------
    >>> state_names(["state.v", "state.w['a']", "state.w['b']"])
    ('v', 'w_a', 'w_b')
    >>> state_names(["carry[0]", "carry[1]"]), state_names(["h"]), state_names([""])
    (('state_0', 'state_1'), ('h',), ('state_0',))
    >>> state_names(["s['time']", "s['v']"])
    ('state_time', 'v')
    """
    names = [_state_name(argument, k) for k, argument in enumerate(arguments)]
    return distinct(
        f"state_{n}" if n in schema.RESERVED or n.startswith(schema.INITIAL) else n for n in names
    )


def _state_name(argument: str, place: int) -> str:
    found = [a or b for a, b in _PART.findall(argument)]
    if not found:
        return _word(argument) or f"state_{place}"
    if all(part.isdigit() for part in found):
        return "_".join(["state", *found])
    while found[0].isdigit():  # a state of several parts in a tuple is told by its parts
        found.pop(0)
    return _word("_".join(found)) or f"state_{place}"


def _word(text: str) -> str:
    """Return a text as a name that every file format can hold."""
    return re.sub(r"\W+", "_", text).strip("_")


def scope_path(scope: str) -> str:
    """Return a name scope as a path: the marks that transformations leave in it are dropped.

    Examples
    --------
    >>> scope_path("Model/jit(inner)/vmap(encoder)/rnn")
    'Model/encoder/rnn'
    """
    parts = []
    for part in scope.split("/"):
        inner = part
        while (found := re.fullmatch(r"(\w+)\((.*)\)", inner)) is not None:
            inner = "" if found[1] in ("jit", "pjit") else found[2]
        if inner:
            parts.append(inner)
    return "/".join(parts)
