"""Packages that only some analyses need, imported when they are."""

from importlib import import_module
from types import ModuleType

from everystate.errors import MissingDependencyError


def extra(module: str, needed_by: str) -> ModuleType:
    """Return a module of a package that the extra ``analysis`` brings.

    Parameters
    ----------
    module : str
        Such as ``"scipy.cluster.hierarchy"``.
    needed_by : str
        What needs it, for the message.

    Raises
    ------
    MissingDependencyError
        If its package is not installed.

    Examples
    --------
    >>> extra("json", "this example").__name__
    'json'
    """
    package = module.split(".")[0]
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != package:
            raise
        raise MissingDependencyError(
            f"{needed_by} needs {package}, which is not installed: "
            "pip install 'everystate[analysis]'"
        ) from error
