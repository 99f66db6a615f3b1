"""Keras' own tests of recurrent layers, each call of a layer recorded and verified.

Run as ``python run_keras_own.py test_file ...``. Every call with numbers in it must come out
bitwise as Keras' own, give a trace, and pass its verification. The last line counts them.
"""

import sys
from collections import Counter

import keras
import numpy as np
import pytest

import everystate as es
from everystate.frameworks.keras.backend import is_compiled, is_described

calls: Counter[str] = Counter()
own_call = keras.layers.RNN.__call__


def recorded(self, *args, **kwargs):
    x = args[0] if args else kwargs.get("sequences")
    try:
        x = keras.ops.convert_to_tensor(x)
    except Exception:  # what Keras refuses it shall refuse itself
        return own_call(self, *args, **kwargs)
    if is_described(x) or is_compiled(x) or "inner_loop" in vars(self):
        return own_call(self, *args, **kwargs)
    with es.recording(self) as recorder:
        result = own_call(self, *args, **kwargs)
    for leaf in recorder.trace.leaves:
        calls[type(self).__name__] += 1
        shown = [a for name, a in leaf.data_vars.items() if not name.startswith("initial_")]
        assert shown
        if "tolerance" in leaf.attrs:
            calls["verified"] += 1
            assert leaf.attrs["max_error_h"] <= leaf.attrs["tolerance"]
    return result


if __name__ == "__main__":
    keras.layers.RNN.__call__ = recorded
    code = pytest.main(["-q", "-p", "no:cacheprovider", "--pyargs", *sys.argv[1:]])
    print(" ".join(f"{name}={count}" for name, count in sorted(calls.items())))  # noqa: T201
    assert np.all(list(calls.values()))
    sys.exit(code)
