"""The vocabulary of a trace, schema 1.

Names of variables, dimensions and attributes, in one place, so that whoever writes
a trace and whoever reads one cannot drift apart. No logic.
"""

from typing import Final, Literal

SCHEMA_VERSION: Final = 1

BATCH: Final = "batch"
TIME: Final = "time"
UNIT: Final = "unit"
PROJECTED_UNIT: Final = "projected_unit"
FEATURE: Final = "feature"
LENGTH: Final = "length"
STEP: Final = "step"
EPOCH: Final = "epoch"

H: Final = "h"
C: Final = "c"
INPUTS: Final = "inputs"
INITIAL: Final = "initial_"

RESERVED: Final = (
    BATCH,
    TIME,
    UNIT,
    PROJECTED_UNIT,
    FEATURE,
    LENGTH,
    STEP,
    EPOCH,
    INPUTS,
)
"""Names that mean something else in a trace, so that no state can have them."""

Origin = Literal["observed", "replayed"]
OBSERVED: Final[Origin] = "observed"
REPLAYED: Final[Origin] = "replayed"

# Attributes of the root group.
SCHEMA_ATTR: Final = "everystate_schema"
COMPLETE_ATTR: Final = "complete"
# Attribute of a leaf: steps within rows' lengths that the layer skipped, where gates are NaN.
SKIPPED_ATTR: Final = "skipped_steps"

LONG_NAMES: Final[dict[str, str]] = {
    "h": "hidden state",
    "c": "cell state",
    "i": "input gate",
    "f": "forget gate",
    "g": "candidate",
    "o": "output gate",
    "r": "reset gate",
    "z": "update gate",
    "n": "candidate",
    "inputs": "input of the layer",
    "initial_h": "hidden state before the first step",
    "initial_c": "cell state before the first step",
    "length": "number of valid steps of the sequence",
    "step": "place in the sequence, from 0",
}
"""Long name of each variable, written to its ``long_name`` attribute."""
GATES: Final = ("i", "f", "g", "o", "r", "z", "n")
"""Variables with that meaning in known cells only: another cell's ``n`` may be a normaliser."""

UNITS: Final = "1"
"""States and gates are dimensionless (the CF convention writes this ``1``)."""
