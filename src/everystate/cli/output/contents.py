"""What a trace holds: each layer's cell, sizes and variables."""

from typing import TYPE_CHECKING, Any

from everystate.cli.output.document import print_table

if TYPE_CHECKING:
    import xarray as xr


def layers_of(trace: "xr.DataTree") -> dict[str, dict[str, Any]]:
    """Return cell, direction, sizes, variables and verification of each layer, by its path."""
    return {leaf.path.strip("/"): _layer(leaf) for leaf in trace.leaves if leaf.data_vars}


def _layer(leaf: "xr.DataTree") -> dict[str, Any]:
    attrs = leaf.attrs
    errors = {
        str(name): value for name, value in attrs.items() if str(name).startswith("max_error_")
    }
    return {
        "cell": attrs.get("cell"),
        "direction": attrs.get("direction"),
        "sizes": {str(name): size for name, size in leaf.sizes.items()},
        "variables": {
            str(name): {"dtype": str(a.dtype), "origin": a.attrs.get("origin")}
            for name, a in leaf.data_vars.items()
        },
        "bytes": sum(a.nbytes for a in leaf.data_vars.values()),
        "precision": attrs.get("precision"),
        "tolerance": attrs.get("tolerance"),
        **errors,
    }


def print_layers(trace: "xr.DataTree") -> None:
    """Print a line for each layer."""
    head = ("layer", "cell", "direction", "sizes", "variables", "MB")
    print_table(head, [_line(path, layer) for path, layer in layers_of(trace).items()])


def _line(path: str, layer: dict[str, Any]) -> list[str]:
    return [
        path,
        str(layer["cell"] or ""),
        str(layer["direction"] or ""),
        _sizes(layer),
        " ".join(layer["variables"]),
        f"{layer['bytes'] / 1e6:.1f}",
    ]


def reductions_of(made: "xr.DataTree | None") -> dict[str, Any]:
    """Return sizes and variables of what was made of the steps, by its path; nothing if none."""
    if made is None:
        return {}
    said = {leaf.path.strip("/"): _reduction(leaf) for leaf in made.leaves}
    return {"reductions": said}


def _reduction(leaf: "xr.DataTree") -> dict[str, Any]:
    sizes = {str(name): size for name, size in leaf.sizes.items()}
    return {"sizes": sizes, "variables": [str(name) for name in leaf.data_vars]}


def print_contents(trace: "xr.DataTree | None", made: "xr.DataTree | None") -> None:
    """Print a line for each layer, and for each figure that was made of the steps."""
    if trace is not None and layers_of(trace):
        print_layers(trace)
    if made is None:
        return
    lines = [
        [path, _sizes(said), " ".join(said["variables"])]
        for path, said in reductions_of(made)["reductions"].items()
    ]
    print_table(("figures", "sizes", "variables"), lines)


def _sizes(said: dict[str, Any]) -> str:
    return ", ".join(f"{name} {size}" for name, size in said["sizes"].items())
