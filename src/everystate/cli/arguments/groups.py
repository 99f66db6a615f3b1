"""Options that belong together: a dataclass in a command's signature stands for its fields."""

import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any, cast, get_type_hints


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command that takes the fields of its dataclass parameters one by one.

    Parameters
    ----------
    command : callable
        Annotated for typer. A parameter whose type is a dataclass stands for its fields, each
        annotated for typer in turn.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Size:
    ...     width: int = 1
    ...     height: int = 1
    >>> def draw(name: str, size: Size) -> None:
    ...     print(name, size)
    >>> inspect.signature(spread(draw))
    <Signature (name: str, *, width: int = 1, height: int = 1)>
    >>> spread(draw)("box", height=3)
    box Size(width=1, height=3)
    """
    hints = get_type_hints(command, include_extras=True)
    groups = {n: cast(type[Any], hint) for n, hint in hints.items() if is_dataclass(hint)}

    def spread_command(*args: Any, **options: Any) -> None:
        given = {
            name: group(**{f.name: options.pop(f.name) for f in fields(group) if f.name in options})
            for name, group in groups.items()
        }
        command(*args, **options, **given)

    parameters = [
        p.replace(annotation=hints[name])
        for name, p in inspect.signature(command).parameters.items()
        if name not in groups
    ]
    for group in groups.values():
        types = get_type_hints(group, include_extras=True)
        parameters += [
            inspect.Parameter(
                f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=types[f.name]
            )
            for f in fields(group)
        ]
    spread_command.__name__, spread_command.__doc__ = command.__name__, command.__doc__
    spread_command.__annotations__ = {p.name: p.annotation for p in parameters}
    spread_command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return spread_command
