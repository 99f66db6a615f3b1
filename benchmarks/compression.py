"""What compression makes of real states: the demo's trained encoder over its series.

Ratios and speeds of each codec on chunks as they are stored; processor time, best of the rounds.
"""

import time
from collections.abc import Callable

import numpy as np
import xarray as xr
from numcodecs import Blosc, Zstd

import everystate as es
from everystate.demo.autoencoder import Autoencoder
from everystate.demo.series import load_series
from everystate.storage.lossy import encoded

CODECS = {
    "lz4, byte shuffle": Blosc("lz4", 5, Blosc.SHUFFLE),
    "lz4, bit shuffle": Blosc("lz4", 5, Blosc.BITSHUFFLE),
    "zstd 1, byte shuffle": Blosc("zstd", 1, Blosc.SHUFFLE),
    "zstd 3, bit shuffle": Blosc("zstd", 3, Blosc.BITSHUFFLE),
    "zstd 3 alone": Zstd(3),
}


def states() -> xr.Dataset:
    """Return every state and gate of the demo's encoder over its whole series."""
    model = Autoencoder()
    sequence = model.scale(load_series("TEST").values)
    return es.record(model.encoder, sequence)["encoder"].to_dataset()


def seconds(work: Callable[[], object], rounds: int) -> float:
    """Return the processor time that something takes, at best."""
    best = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def main(rounds: int) -> None:
    """Print the tables."""
    layer = states()
    names = [name for name, variable in layer.data_vars.items() if "time" in variable.dims]
    whole = b"".join(np.ascontiguousarray(layer[name].values).tobytes() for name in names)
    print(f"states and gates of the demo's encoder, {len(whole) / 1e6:.1f} MB of float32")
    print(f"{'codec':<22} {'of the size':>11} {'writes':>10} {'reads':>10}")
    parts = [whole[k : k + (1 << 20)] for k in range(0, len(whole), 1 << 20)]
    for name, codec in CODECS.items():
        if isinstance(codec, Blosc):
            codec = Blosc(codec.cname, codec.clevel, codec.shuffle, typesize=4)
        packed = [codec.encode(part) for part in parts]
        size = sum(map(len, packed)) / len(whole)
        there = seconds(lambda codec=codec: [codec.encode(p) for p in parts], rounds)
        back = seconds(lambda codec=codec, packed=packed: [codec.decode(p) for p in packed], rounds)
        mb = len(whole) / 1e6
        print(f"{name:<22} {size:10.0%} {mb / there:5.0f} MB/s {mb / back:5.0f} MB/s")
    print("\nstored_as, with lz4 and byte shuffle; largest error of h and c")
    for kind in (None, "float16", "bfloat16", "int8"):
        kept = layer if kind is None else encoded(layer, kind)
        size = 0
        for variable in kept.data_vars.values():
            if "time" in variable.dims:
                codec = Blosc("lz4", 5, Blosc.SHUFFLE, typesize=variable.dtype.itemsize)
                size += len(codec.encode(np.ascontiguousarray(variable.values)))
        errors = [kept.attrs.get(f"storage_error_{name}", 0.0) for name in "hc"]
        print(f"{kind or 'float32':<10} {size / len(whole):6.0%} {errors[0]:9.2g} {errors[1]:9.2g}")


if __name__ == "__main__":
    main(5)
