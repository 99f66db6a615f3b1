"""`explore`: the explorer, handed out on this machine only."""

import socket
from collections.abc import Callable, Mapping
from typing import Any, Final

import xarray as xr

from everystate.errors import MissingDependencyError
from everystate.views.explorer.session import Session
from everystate.views.marks import Marks

ADDRESS: Final = "127.0.0.1"
"""No other machine can reach it."""
NEEDED: Final = ("panel", "holoviews", "datashader", "bokeh", "scipy")


def explore(
    trace: xr.DataTree,
    *,
    compare: xr.DataTree | None = None,
    scores: Mapping[str, Any] | None = None,
    labels: Marks | None = None,
    reopen: Callable[[], xr.DataTree] | None = None,
    port: int = 0,
    show: bool = True,
) -> None:
    """Explore a trace in the browser: from the whole record down to single steps.

    One zooms, picks, sorts and clusters units, selects a stretch of time, finds those like it
    and exports it, sees labels and scores above the states, another trace beside it, and follows
    one that is still being written. It runs until it is interrupted (Ctrl-C). The server
    listens on this machine only, and takes connections from its own pages only.

    Parameters
    ----------
    trace : xarray.DataTree
        From ``es.record`` or ``es.open_trace``.
    compare : xarray.DataTree, optional
        Another trace of the same layers and steps.
    scores : mapping of str to array-like or xarray.DataArray, optional
        Series over time, by name: one value for each recorded step, or with a ``time``
        coordinate of their own.
    labels : mapping of str to (first, last), or to several of them, optional
        Stretches of time by name, in the labels of the time axis, both ends included.
    reopen : callable, optional
        Opens the trace again, to follow one that is still growing:
        ``lambda: es.open_trace("run.zarr", incomplete="trim")``.
    port : int
        Where to listen; 0: any free port.
    show : bool
        Open a browser.

    Raises
    ------
    TraceFormatError
        If `trace` or `compare` is not a trace of everystate.
    InputError
        If a score or a label does not fit the time axis; if a trace has a dimension ``epoch``:
        choose one, ``trace.isel(epoch=-1)``.
    MissingDependencyError
        If Panel, HoloViews or Datashader is not installed (``pip install 'everystate[explore]'``).
    OSError
        If the port is taken.

    Examples
    --------
    >>> import torch, everystate as es
    >>> trace = es.record(torch.nn.LSTM(3, 4, batch_first=True), torch.randn(2, 50, 3))
    >>> es.explore(trace, labels={"odd": (20, 30)})  # doctest: +SKIP
    exploring at http://127.0.0.1:40123/ (Ctrl-C ends it)

    What does not fit is refused before anything is served:

    >>> es.explore(trace, labels={"odd": ("monday", "friday")})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    everystate.errors.InputError: 'monday' is not on the time axis, which goes from 0 to 49 ...
    """
    Session(trace, compare, scores or {}, labels, reopen)  # whatever is wrong is said at once

    def page() -> Any:
        from everystate.views.explorer.app import App

        return App(Session(trace, compare, scores or {}, labels, reopen)).page()

    serve(page, port, show)


def serve(page: Callable[[], Any], port: int, show: bool) -> None:
    """Hand a page out until the process is interrupted; say where on stdout."""
    panel = _panel()
    port = port or _free_port()
    origins = [f"{ADDRESS}:{port}", f"localhost:{port}"]
    print(f"exploring at http://{ADDRESS}:{port}/ (Ctrl-C ends it)", flush=True)  # noqa: T201
    panel.serve(
        {"/": page},
        address=ADDRESS,
        port=port,
        websocket_origin=origins,
        show=show,
        title="everystate explorer",
        verbose=False,
    )


def _panel() -> Any:
    try:
        import datashader  # noqa: F401
        import holoviews
        import panel
        import scipy  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in NEEDED:
            raise
        raise MissingDependencyError(
            f"the explorer needs {error.name}, which is not installed: "
            "pip install 'everystate[explore]'"
        ) from error
    from everystate.views.theme import THEME

    holoviews.extension("bokeh")
    holoviews.renderer("bokeh").theme = THEME
    panel.extension()
    return panel


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        port: int = probe.getsockname()[1]
        return port
