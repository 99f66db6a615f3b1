"""``--reduce`` and ``--no-full``: reducers from text, beside what a `Select` takes."""

import ast
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from everystate.cli.arguments.selection import Selecting


@dataclass
class Keeping(Selecting):
    """The options that say what to record, and what to make of it."""

    reduce: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Make figures of all steps in one pass, and keep them in the store: "
            "moments,range,covariance or 'histogram(low=0, bins=50),quantiles'.",
        ),
    ] = None
    full: Annotated[
        bool,
        typer.Option(
            "--full/--no-full",
            help="With --reduce: whether the steps themselves are stored, too.",
        ),
    ] = True

    def reducing(self) -> dict[str, Any]:
        """Return the options of `everystate.record` for what is made of the steps; none: empty.

        Raises
        ------
        typer.BadParameter
            If there is no such reducer, or it has no such option.
        """
        if self.reduce is None:
            if not self.full:
                raise typer.BadParameter("needs --reduce.", param_hint="--no-full")
            return {}
        return {"reduce": reducers(self.reduce), "full": self.full}


def reducers(text: str) -> dict[str, Any]:
    """Return the reducers that a text names, by name; nothing in it is run."""
    try:
        listed = ast.parse(f"({text},)", mode="eval").body
        assert isinstance(listed, ast.Tuple)
        found = [_reducer(part) for part in listed.elts]
    except (SyntaxError, ValueError, TypeError, AssertionError) as error:
        raise _unreadable(text, str(error)) from error
    named = dict(found)
    if len(named) < len(found):
        raise _unreadable(text, "one is named twice")
    return named


def _reducer(part: ast.expr) -> tuple[str, Any]:
    from everystate.analysis import reducers as known

    kinds = {name.lower(): getattr(known, name) for name in known.__all__}
    kinds = {name: kind for name, kind in kinds.items() if isinstance(kind, type)}
    del kinds["reducer"]  # what they have in common
    called = part.func if isinstance(part, ast.Call) else part
    if not isinstance(called, ast.Name) or called.id.lower() not in kinds:
        raise ValueError(f"{ast.unparse(called)} is none of {', '.join(sorted(kinds))}")
    options = {}
    if isinstance(part, ast.Call):
        if part.args:
            raise ValueError("options are given by name")
        options = {str(each.arg): ast.literal_eval(each.value) for each in part.keywords}
    name = called.id.lower()
    return name, kinds[name](**options)


def _unreadable(text: str, why: str) -> typer.BadParameter:
    return typer.BadParameter(
        f"{text!r}: {why}. Expected names, with options if need be: moments,quantiles(k=400).",
        param_hint="--reduce",
    )
