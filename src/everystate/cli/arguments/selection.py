"""``--layers``, ``--variables`` and the rest: a `Select` from text."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from everystate import Select


def names(text: str | None) -> list[str] | None:
    """Return what a comma-separated list names; None if it was not given."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


@dataclass
class Selecting:
    """The options that say what to record."""

    layers: Annotated[
        str | None,
        typer.Option(
            help="Layers, as patterns: encoder or 'encoder.*,*/layer_1'. They also choose the "
            "stack of a weights file that reads the data."
        ),
    ] = None
    variables: Annotated[
        str | None,
        typer.Option(help="Variables: h,c,f or states,gates,inputs. Default: states,gates."),
    ] = None
    units: Annotated[
        str | None, typer.Option(help="Units: 0,3,17 or START:STOP or START:STOP:STEP.")
    ] = None
    every: Annotated[int, typer.Option(help="Keep each n-th step.")] = 1
    window: Annotated[
        str | None,
        typer.Option(
            metavar="START:STOP",
            help="Keep a range of steps, by number. Either end may be left out; "
            "write --window=-100: for the last hundred.",
        ),
    ] = None
    dtype: Annotated[str | None, typer.Option(help="Store as float16, float32 or float64.")] = None

    def select(self) -> "Select":
        """Return the selection.

        Raises
        ------
        typer.BadParameter
            If numbers are not written as they should be.
        SelectionError
            If they cannot mean anything.
        """
        from everystate import Select

        window = None if self.window is None else _slice(self.window, "--window", 2)
        return Select(
            layers=names(self.layers),
            variables=names(self.variables) or ("states", "gates"),
            units=_units(self.units),
            every=self.every,
            window=window,
            dtype=self.dtype,
        )


def _units(text: str | None) -> slice | list[int] | None:
    if text is None:
        return None
    if ":" in text:
        return _slice(text, "--units", 3)
    return [_whole(part, "--units") for part in text.split(",")]


def _slice(text: str, option: str, most: int) -> slice:
    parts = text.split(":")
    if not 2 <= len(parts) <= most:
        raise typer.BadParameter(f"{text!r}: expected START:STOP.", param_hint=option)
    return slice(*(_whole(part, option) if part.strip() else None for part in parts))


def _whole(text: str, option: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no whole number.", param_hint=option) from None
