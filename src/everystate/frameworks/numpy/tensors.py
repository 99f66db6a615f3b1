"""The tensors of one layer and direction: read, checked against each other, in canonical form."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from everystate.cells import GRU, LSTM, Cell, SimpleRNN, Weights
from everystate.errors import WeightsError
from everystate.frameworks.numpy.reading import FLOATS, Tensor, WeightsFile

PLACE: Final = re.compile(r"_l(?P<layer>\d+)(?P<reverse>_reverse)?")
"""How PyTorch's names say layer and direction."""

_FAMILIES: Final[dict[int, type[Cell]]] = {4: LSTM, 3: GRU, 1: SimpleRNN}


@dataclass(eq=False)
class LayerTensors:
    """The tensors of one layer and direction, each checked against the others."""

    file: WeightsFile
    prefix: str
    place: str
    names: Mapping[str, str]

    def __post_init__(self) -> None:
        self.arrays = {kind: self._read(name) for kind, name in self.names.items()}
        found = PLACE.fullmatch(self.place)
        self.layer = int(found["layer"]) if found else 0
        self.reverse = bool(found and found["reverse"])
        self.family = self._family()
        self._check_shapes()

    @property
    def stored(self) -> str:
        """The dtypes in the file, by their common names."""
        return ", ".join(sorted({FLOATS[self.file.dtypes[name]] for name in self.names.values()}))

    def name(self, kind: str) -> str:
        """Return the full name of one of its tensors."""
        return f"{self.prefix}{kind}{self.place}"

    def weights(self, dtype: "np.dtype[np.generic]") -> Weights:
        """Return the weights in canonical form: the two biases summed, except of a GRU."""
        a = {kind: array.astype(dtype, copy=False) for kind, array in self.arrays.items()}
        b, b_R = a.get("bias_ih"), a.get("bias_hh")
        if b is not None and b_R is not None and self.family is not GRU:
            b, b_R = b + b_R, None
        return Weights(a["weight_ih"], a["weight_hh"], b, b_R, projection=a.get("weight_hr"))

    def _read(self, name: str) -> Tensor:
        file = self.file
        if file.dtypes[name] not in FLOATS:
            raise WeightsError(
                f"{file.path}: {name} has dtype {file.dtypes[name]}, expected "
                f"{', '.join(FLOATS.values())}. Quantised weights must be converted back first."
            )
        array = file.read(name)
        rank = 2 if "weight_" in name.rsplit(".", 1)[-1] else 1
        if array.ndim != rank or not array.size:
            raise WeightsError(
                f"{file.path}: {name} has shape {array.shape}, expected {rank} dimensions, none "
                "of them empty."
            )
        odd = array.size - np.count_nonzero(np.isfinite(array))
        if odd:
            raise WeightsError(
                f"{file.path}: {name} holds {odd} values that are NaN or infinite, expected finite "
                "weights. Did the training diverge? Load an earlier checkpoint."
            )
        return array

    def _family(self) -> type[Cell]:
        rows, h_units = self.arrays["weight_hh"].shape
        projection = self.arrays.get("weight_hr")
        units = h_units if projection is None else projection.shape[1]
        family = _FAMILIES.get(rows // units) if rows % units == 0 else None
        if family is None or (projection is not None and family is not LSTM):
            projected = "" if projection is None else f", with {self.name('weight_hr')}"
            raise WeightsError(
                f"{self.file.path}: {self.name('weight_hh')} has shape {(rows, h_units)}"
                f"{projected}: {rows} rows for {units} units. Expected 4 rows a unit (LSTM), "
                f"3 (GRU) or 1 (RNN); an LSTM with proj_size also needs {self.name('weight_hr')}, "
                "of shape (projected units, units)."
            )
        return family

    def _check_shapes(self) -> None:
        rows, h_units = self.arrays["weight_hh"].shape
        features = self.arrays["weight_ih"].shape[1]
        expected: dict[str, tuple[int, ...]] = {
            "weight_ih": (rows, features),
            "bias_ih": (rows,),
            "bias_hh": (rows,),
            "weight_hr": (h_units, rows // 4),
        }
        for kind, array in self.arrays.items():
            if kind in expected and array.shape != expected[kind]:
                raise WeightsError(
                    f"{self.file.path}: {self.name(kind)} has shape {array.shape}, expected "
                    f"{expected[kind]} beside {self.name('weight_hh')} {(rows, h_units)}."
                )
