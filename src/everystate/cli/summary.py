"""``everystate summary``: the figures of each layer."""

from everystate.cli.arguments.trace import TracePath, Trim, open_for_reading
from everystate.cli.output.document import AsJson, print_json, print_table
from everystate.cli.output.progress import progress


def summary(trace: TracePath, trim: Trim = False, as_json: AsJson = False) -> None:
    """Print the range, saturation, memory and drift of each layer's states."""
    import everystate as es
    from everystate.views.table import lines_of

    opened = open_for_reading(trace, trim)
    with progress("reading"):
        table = es.summary(opened)
    if as_json:
        print_json(table.to_dict("index"))
        return
    lines = lines_of(table)
    layers = zip(map(str, table.index), *(line.cells for line in lines), strict=True)
    print_table(("", *(line.title for line in lines)), layers, across=True)
