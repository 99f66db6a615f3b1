"""A cell that is a plain function: a leaky integrator with two time constants, on NumPy.

    python examples/custom_cells/leaky_integrator.py

No framework is needed. A function says what its states are called by an attribute; everystate
steps it over the first axis of the input.
"""

import numpy as np
import numpy.typing as npt

import everystate as es

Tensor = npt.NDArray[np.floating]

FAST, SLOW = 5.0, 100.0
"""Time constants, in steps."""


def integrator(x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Forget quickly, and slowly: ``v' = exp(-1/tau) v + (1 - exp(-1/tau)) x`` for each."""
    fast, slow = state
    keep_fast, keep_slow = np.exp(-1.0 / FAST), np.exp(-1.0 / SLOW)
    fast = keep_fast * fast + (1.0 - keep_fast) * x
    slow = keep_slow * slow + (1.0 - keep_slow) * x
    return fast, slow


integrator.everystate_states = ("fast", "slow")  # type: ignore[attr-defined]


def main() -> None:
    """Record a step of the input, and read each time constant off the trace."""
    x = np.zeros((400, 2, 1))  # time, batch, features
    x[100:] = 1.0
    zeros = np.zeros((2, 1))

    trace = es.record(integrator, x, (zeros, zeros))
    layer = trace["integrator"]
    print(f"recorded: {list(layer.data_vars)}, {dict(layer.sizes)}")

    # After one time constant, 1 - 1/e of the way is gone.
    for name, tau in (("fast", FAST), ("slow", SLOW)):
        response = layer[name].isel(batch=0, unit=0)
        reached = int((response > 1.0 - np.exp(-1.0) - 1e-9).argmax("time")) - 100 + 1
        print(f"{name}: {reached} steps to 63 %, its time constant is {tau:.0f}")

    # A stream: calls whose state is handed on are one sequence.
    with es.recording(integrator, along="time") as recorder:
        state = (zeros, zeros)
        for chunk in np.split(x, 4):
            _, state = recorder.run(chunk, state)
    streamed = recorder.trace["integrator"]
    print(f"as a stream of 4 chunks, the same: {bool((streamed.slow == layer.slow).all())}")


if __name__ == "__main__":
    main()
