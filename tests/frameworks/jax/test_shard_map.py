import os
import subprocess
import sys
from pathlib import Path

from everystate.testing import importorskip

importorskip("jax")
importorskip("equinox")


def test_each_device_has_its_own_rows():
    flags = "--xla_force_host_platform_device_count=2"
    script = Path(__file__).with_name("run_on_two_devices.py")
    ran = subprocess.run(
        [sys.executable, script],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
