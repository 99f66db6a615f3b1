"""A carried state as plain arrays and JSON, and back: any nesting of arrays, numbers and None."""

from collections import namedtuple
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt
from array_api_compat import array_namespace, is_array_api_obj, is_numpy_array, is_torch_array

from everystate.errors import ResumeError
from everystate.recording.observation import as_numpy

Arrays = list[npt.NDArray[Any]]


def dump(state: Any, arrays: Arrays) -> Any:
    """Add a state's arrays to `arrays`; return, as JSON, how they make the state.

    Parameters
    ----------
    state : object
        Any nesting of tuples, lists and dicts of arrays, numbers, texts and None.
    arrays : list of ndarray
        Where its arrays go.

    Raises
    ------
    ResumeError
        If there is anything else in it.
    """
    if state is None or isinstance(state, (bool, int, float, str)):
        return {"value": state}
    if isinstance(state, (tuple, list)):
        kind = "tuple" if isinstance(state, tuple) else "list"
        named = [type(state).__name__, *state._fields] if hasattr(state, "_fields") else []
        return {kind: [dump(part, arrays) for part in state], **({"named": named} if named else {})}
    if isinstance(state, dict) and all(isinstance(key, str) for key in state):
        return {"dict": {key: dump(part, arrays) for key, part in state.items()}}
    if isinstance(state, np.generic) or is_numpy_array(state):
        arrays.append(np.array(state))
        return {"array": len(arrays) - 1, "namespace": "numpy"}
    if is_array_api_obj(state):
        return _dump_array(state, arrays)
    if hasattr(state, "numpy"):  # TensorFlow's, which takes NumPy's in their place
        arrays.append(np.array(state.numpy()))
        return {"array": len(arrays) - 1, "namespace": "numpy"}
    raise ResumeError(
        f"the state carried from chunk to chunk holds a {type(state).__name__}, which cannot be "
        "stored. Let step= return tuples, lists and dicts of arrays, numbers and None."
    )


def load(said: Any, arrays: Sequence[npt.NDArray[Any]]) -> Any:
    """Return the state that `dump` took apart; a named tuple as one with the same names."""
    if "value" in said:
        return said["value"]
    if "dict" in said:
        return {key: load(part, arrays) for key, part in said["dict"].items()}
    if "array" not in said:
        kind = tuple if "tuple" in said else list
        parts = [load(part, arrays) for part in next(iter(said.values()))]
        if "named" in said:
            name, *fields = said["named"]
            return namedtuple(name, fields)(*parts)
        return kind(parts)
    array = arrays[said["array"]]
    if said["namespace"] == "numpy":
        return array
    xp = import_module(said["namespace"])
    if "bits" in said:
        return xp.asarray(array.view(getattr(xp, said["bits"])))
    restored = xp.asarray(array)
    if "dtype" in said:
        restored = restored.to(said["device"], getattr(xp, said["dtype"]))
    return restored


def _dump_array(state: Any, arrays: Arrays) -> Any:
    """Take an array of a framework; PyTorch's may be of a dtype or on a device of its own."""
    said = {"array": len(arrays), "namespace": array_namespace(state).__name__}
    if is_torch_array(state):
        said |= {"dtype": str(state.dtype).removeprefix("torch."), "device": str(state.device)}
    array = as_numpy(state).copy()
    if array.dtype.isbuiltin != 1:  # JAX's bfloat16, which no file holds
        said["bits"] = array.dtype.name
        array = array.view(f"u{array.dtype.itemsize}")
    arrays.append(array)
    return said
