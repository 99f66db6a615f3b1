"""Results on stdout: a table for people, one JSON document for programs."""

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON document, and nothing else, on stdout.")
]


def print_json(document: object) -> None:
    """Print a document as JSON. NaN becomes null, infinity the text ``inf`` or ``-inf``."""
    typer.echo(json.dumps(_plain(document), indent=2, ensure_ascii=False, allow_nan=False))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    value = value.item() if hasattr(value, "item") else value  # NumPy's scalars
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value if isinstance(value, int | float | str) or value is None else str(value)


def print_table(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, across: bool = False
) -> None:
    """Print a table; as wide as it needs to be where nobody reads it on a terminal.

    Parameters
    ----------
    head : sequence of str
        What each cell of a row is.
    rows : iterable of sequence of str
        Each begins with its name. On a terminal that is too narrow for the table they are
        listed below each other, so that no name is broken.
    across : bool
        Whether the rows are shown as columns.
    """
    from rich.cells import cell_len
    from rich.console import Console
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else 1000, soft_wrap=False)
    rows = list(rows)
    grid = list(zip(head, *rows, strict=True)) if across else [head, *rows]
    widths = [max(map(cell_len, column)) for column in zip(*grid, strict=True)]
    if sum(widths) + 2 * (len(widths) - 1) <= console.width:
        console.print(_grid(*grid))
        return
    for name, *cells in rows:
        console.print(Text(name, style="bold"), soft_wrap=True)
        told = zip(head[1:], cells, strict=True)
        console.print(_grid(("", ""), *((f"  {title}", cell) for title, cell in told if cell)))


def _grid(head: Sequence[str], *rows: Sequence[str]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", show_header=any(head))
    for title in head:
        table.add_column(Text(title), overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # Text: names are shown as they are, not as markup
    return table
