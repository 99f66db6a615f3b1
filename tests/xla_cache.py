"""What XLA compiled for one test serves the next: most of JAX tests' time is compiling."""

from collections.abc import Iterator

import pytest

from everystate.testing import importorskip


@pytest.fixture(scope="session", autouse=True)
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep every compilation for the session; a folder's conftest imports this to have it."""
    jax = importorskip("jax")
    places = {
        "jax_compilation_cache_dir": str(tmp_path_factory.getbasetemp() / "xla"),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in places}
    for name, value in places.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)
