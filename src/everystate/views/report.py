"""`report`: one offline HTML file with the summary and pictures of a trace."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from everystate.analysis.finding import Finding
from everystate.errors import MissingDependencyError, TraceWriteError
from everystate.views.marks import Marks


def report(
    trace: xr.DataTree,
    path: str | os.PathLike[str] = "report.html",
    *,
    title: str | None = None,
    series: Any = None,
    marks: Marks | None = None,
    row: object = None,
    findings: Sequence[Finding] | None = None,
) -> Path:
    """Write a report: what was found, then heat maps and gates of every layer over a shared time.

    Each finding leads to the picture that shows it. The file needs no network and loads nothing.
    Long recordings are drawn by the lowest and highest value of each stretch of steps, so that
    no extreme is lost; zooming in shows shorter stretches, and every step around findings and
    marks, as far as some 40 MB hold them. The page says how many steps a column stands for.

    Parameters
    ----------
    trace : xarray.DataTree
        From ``es.record`` or ``es.open_trace``.
    path : path-like
        Where to write the HTML file; what is there is replaced.
    title : str, optional
        Heading of the page. None: names the model.
    series : array-like, shape (time,) or (time, features), or xarray.DataArray, optional
        What to show above all layers, one value or row for each recorded step; an
        `xarray.DataArray` with a ``time`` coordinate may have other steps. A mapping of names to
        such series shows several, such as an input and a score. Inputs that a layer has
        recorded are shown with the layer in any case.
    marks : mapping of str to (first, last), or to several of them, optional
        Stretches of time to shade, by name: the labels of their first step and of the last one
        included, as the time axis has them.
    row : label, optional
        Which sequence of the batch the pictures show: a value of the ``batch`` coordinate.
        None: the first.
    findings : sequence of Finding, optional
        What to say first, such as ``es.diagnose(trace, baseline)``. None: ``es.diagnose(trace)``.

    Returns
    -------
    pathlib.Path
        Where the report was written.

    Raises
    ------
    TraceFormatError
        If `trace` is not a trace of everystate.
    SelectionError
        If there is no such row.
    InputError
        If `series` does not fit the recorded steps, or a mark the time axis; if `trace` has a
        dimension ``epoch``: choose one, ``trace.isel(epoch=-1)``.
    MissingDependencyError
        If bokeh or jinja2 is not installed (``pip install 'everystate[report]'``).
    TraceWriteError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile, torch, everystate as es
    >>> trace = es.record(torch.nn.LSTM(3, 4, batch_first=True), torch.randn(2, 50, 3))
    >>> folder = tempfile.mkdtemp()
    >>> es.report(trace, f"{folder}/run.html", marks={"odd": (20, 30)}).name
    'run.html'
    """
    target = Path(path)
    _check_place(target)
    try:
        from everystate.views.page import render
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in ("bokeh", "jinja2", "markupsafe"):
            raise
        raise MissingDependencyError(
            f"a report needs {error.name}, which is not installed: pip install 'everystate[report]'"
        ) from error
    html = render(trace, title, series, marks, row, findings)
    part = target.with_name(f".{target.name}.part")
    try:
        part.write_text(html, encoding="utf-8")
        part.replace(target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise TraceWriteError(
            f"cannot write the report to {target}: {error.strerror or error}. "
            "Choose a path in a folder that exists, has room, and can be written to."
        ) from error
    return target


def _check_place(target: Path) -> None:
    """Refuse a place that cannot hold the report before any work is done."""
    if target.is_dir():
        raise TraceWriteError(f"cannot write the report to {target}: it is a folder. Name a file.")
    if not target.parent.is_dir():
        raise TraceWriteError(
            f"cannot write the report to {target}: {target.parent} is no folder. Create it first."
        )
