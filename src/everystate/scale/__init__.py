"""Many sequences, on many processes or machines: one trace of all of them."""

from everystate.scale.cluster import connected
from everystate.scale.coordinate import record_many
from everystate.scale.inputs.arrays import Arrays
from everystate.scale.inputs.files import Files
from everystate.scale.inputs.parquet import Parquet
from everystate.scale.options import Batching
from everystate.scale.result import Recorded

__all__ = ["Arrays", "Batching", "Files", "Parquet", "Recorded", "connected", "record_many"]
