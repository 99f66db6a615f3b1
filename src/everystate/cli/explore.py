"""``everystate explore``: a trace in the browser."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from everystate.cli.arguments.trace import TracePath, Trim, open_for_reading


def explore(
    trace: TracePath,
    compare: Annotated[
        Path | None, typer.Option(help="Folder of another trace, shown beside it.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Follow a trace that is still being written.")
    ] = False,
    port: Annotated[
        int, typer.Option(help="Where to listen; 0: any free port.", min=0, max=65_535)
    ] = 0,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open a browser.")] = True,
    trim: Trim = False,
) -> None:
    """Explore a trace in the browser, from the whole record down to single steps.

    The server listens on this machine only (127.0.0.1), and runs until Ctrl-C.
    """
    import everystate as es

    reopen = partial(open_for_reading, trace, trim or follow)
    es.explore(
        reopen(),
        compare=None if compare is None else open_for_reading(compare, trim),
        reopen=reopen if follow else None,
        port=port,
        show=browser,
    )
