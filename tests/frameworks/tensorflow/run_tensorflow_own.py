"""Run test files of TensorFlow with everystate's functions in place of TensorFlow's.

Usage: python run_tensorflow_own.py FILE...

TensorFlow's behaviour is that of version 1, else it skips most of these tests. In each file
the name ``rnn`` stands for TensorFlow's module with two functions exchanged; they must return
states besides, of the final state's structure, which the tests then do not see.
"""

import importlib.util
import sys
import types
import unittest
import warnings
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.python.ops import rnn as real

from everystate.errors import EverystateWarning
from everystate.frameworks import tensorflow as ours

calls = {"dynamic_rnn": 0, "bidirectional_dynamic_rnn": 0}


def without_states(name: str) -> Any:
    def function(*args: Any, **options: Any) -> Any:
        calls[name] += 1
        outputs, final_state, states = getattr(ours, name)(*args, **options)
        tf.nest.assert_same_structure(final_state, states)
        return outputs, final_state

    return function


def exchanged() -> types.ModuleType:
    module = types.ModuleType(real.__name__)
    module.__dict__.update(real.__dict__)
    for name in calls:
        setattr(module, name, without_states(name))
    return module


def tests_of(path: Path) -> unittest.TestSuite:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    module.rnn = exchanged()
    return unittest.defaultTestLoader.loadTestsFromModule(module)


def main() -> int:
    tf.compat.v1.disable_v2_behavior()
    warnings.simplefilter("ignore", EverystateWarning)
    suite = unittest.TestSuite(tests_of(Path(path)) for path in sys.argv[1:])
    result = unittest.TextTestRunner(verbosity=1).run(suite)
    skipped = len(result.skipped)
    sys.stdout.write(f"ran {result.testsRun}, skipped {skipped}, calls of ours {calls}\n")
    return 0 if result.wasSuccessful() and any(calls.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
