"""What is written of a shared trace: its plan in one file, and a mark for each shard.

The plan is written once, before the first row. The mark of a shard is written by whoever wrote
the shard, after its last value; a shard without a mark is not done, whatever is in its files.
No two processes ever write the same file, but for a shard that is done twice: then both write
the same rows, and every file is whole.
"""

import json
import zlib
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Self

from everystate.errors import CorruptTraceError
from everystate.storage.shared.root import Root

PLAN_FILE: Final = "everystate.shards.json"
MARKS: Final = "everystate.shards"
CHECKSUM: Final = "crc32"


@dataclass
class Plan:
    """What is recorded, and how its rows are cut into shards.

    Parameters
    ----------
    rows : int
        Rows in all.
    shard_rows : int
        Rows of a shard; the last one may have fewer.
    inputs : str
        Digest of the names and sizes of what is read.
    options : str
        What of the options decides the values.
    features : int
        Features of every sequence.
    variables : dict of str to list of str
        Variables of each layer, in their order: Zarr sorts them.
    weights : dict of str to str
        SHA-256 of the weights of each layer.
    laid_out : bool
        Whether all arrays are there.
    reductions : list of str
        Paths of what is made of each row, ``layer/variable/name``.
    answer : dict
        By what the model and one of the rows are recognised. Empty: not known.
    """

    rows: int
    shard_rows: int
    inputs: str
    options: str
    features: int = 0
    variables: dict[str, list[str]] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)
    laid_out: bool = False
    reductions: list[str] = field(default_factory=list)
    answer: dict[str, Any] = field(default_factory=dict)

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.rows // self.shard_rows)

    def rows_of(self, shard: int) -> range:
        """Return the rows of a shard."""
        start = shard * self.shard_rows
        return range(start, min(start + self.shard_rows, self.rows))

    def save(self, root: Root) -> None:
        """Write it."""
        root.write(PLAN_FILE, _sealed(asdict(self)))

    @classmethod
    def load(cls, root: Root) -> Self | None:
        """Return the plan of the trace at a place; None if it has none.

        Raises
        ------
        CorruptTraceError
            If it is damaged.
        """
        content = root.read(PLAN_FILE)
        if content is None:
            return None
        try:
            return cls(**_opened(content))
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise CorruptTraceError(
                f"{root}: {PLAN_FILE}, which says what is recorded, is damaged ({error}). Restore "
                "that file from a copy, or record again."
            ) from error


@dataclass
class ShardMark:
    """What is said of a shard once it is written.

    Parameters
    ----------
    shard : int
        Its number.
    attrs : dict of str to dict
        Attributes of each layer, such as the largest errors found.
    failed : dict of int to str
        Rows that could not be recorded, and why.
    """

    shard: int
    attrs: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)

    def save(self, root: Root) -> None:
        """Write it: the shard is done."""
        content = asdict(self) | {"failed": {str(row): why for row, why in self.failed.items()}}
        root.write(f"{MARKS}/{self.shard:08d}.json", _sealed(content))


def load_marks(root: Root) -> dict[int, ShardMark]:
    """Return the marks of all shards that are done; a damaged mark is none."""
    found = {}
    for name in root.names(MARKS):
        content = root.read(f"{MARKS}/{name}") if name.endswith(".json") else None
        try:
            fields = _opened(content or b"")
            failed = {int(row): why for row, why in fields.pop("failed").items()}
            mark = ShardMark(failed=failed, **fields)
        except (ValueError, TypeError, LookupError, AttributeError):
            continue
        found[mark.shard] = mark
    return found


def _sealed(content: dict[str, Any]) -> bytes:
    return json.dumps({**content, CHECKSUM: _checksum(content)}).encode()


def _opened(content: bytes) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(content)
    if fields.pop(CHECKSUM) != _checksum(fields):
        raise ValueError("its checksum does not match")
    return fields


def _checksum(content: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(content).encode())
