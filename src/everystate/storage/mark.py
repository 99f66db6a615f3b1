"""The progress mark of a trace being written: ``everystate.json``, beside its Zarr metadata.

The mark is written after the data that it vouches for, in one rename, so that at any moment
what it says is complete is complete. It is a file of its own, not an attribute, because it
speaks of these very files: `xarray.DataTree.to_zarr` copies attributes into stores for which
they would not be true (it leaves out chunks of zeros, for example, which we never do).
"""

import json
import os
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

from everystate.errors import CorruptTraceError

FILE_NAME = "everystate.json"
CHECKSUM = ', "crc32": '
"""What comes before the checksum of all that is before it."""


@dataclass
class Mark:
    """What a writer vouches for.

    Attributes
    ----------
    done, total : dict of str to int
        Steps of each layer that are completely written, and steps in all, by the group's path.
    endless : list of str
        Those of them whose steps in all nobody knows yet: their total is what there is so far.
    variables : dict of str to dict of str to str
        Dtype of each variable of each group, in the trace's own order: Zarr sorts them, and CF
        conventions lose the resolution of datetimes.
    attrs : dict of str to dict
        Attributes of a layer that change while it is written, such as the largest error so far.
    carried : dict
        What a recording that was stopped needs to go on (see `TraceAppender`).
    id : str
        Changes when a trace is overwritten, so that whoever still reads the old one can tell.
    """

    done: dict[str, int] = field(default_factory=dict)
    total: dict[str, int] = field(default_factory=dict)
    variables: dict[str, dict[str, str]] = field(default_factory=dict)
    attrs: dict[str, dict[str, Any]] = field(default_factory=dict)
    carried: dict[str, Any] = field(default_factory=dict)
    endless: list[str] = field(default_factory=list)
    id: str = field(default_factory=lambda: uuid4().hex)

    def save(self, folder: Path) -> None:
        """Write the mark into the trace's folder, atomically."""
        content = json.dumps(vars(self))
        content = f"{content[:-1]}{CHECKSUM}{zlib.crc32(content.encode())}}}"
        fresh = folder / f"{FILE_NAME}.partial"
        fresh.write_text(content, encoding="utf-8")
        os.replace(fresh, folder / FILE_NAME)

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """Return the mark of the trace in a folder, or None if `save_trace` did not write it.

        Raises
        ------
        CorruptTraceError
            If there is a file of that name which is not a mark.
        """
        try:
            text = (folder / FILE_NAME).read_text(encoding="utf-8")
            content, _, checksum = text.rpartition(CHECKSUM)
            if int(checksum[:-1]) != zlib.crc32(f"{content}}}".encode()):
                raise ValueError("its checksum does not match")
            return cls(**json.loads(f"{content}}}"))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, AttributeError, LookupError) as error:
            raise CorruptTraceError(
                f"{folder}: the progress mark {FILE_NAME} is damaged ({error}). If you know that "
                "the trace was complete, delete that file and open it again."
            ) from error

    @property
    def steps_done(self) -> int:
        """Steps completely written, of all layers together."""
        return sum(self.done.values())

    @property
    def steps_total(self) -> int:
        """Steps in all, of all layers together."""
        return sum(self.total.values())

    def lacks(self, path: str) -> bool:
        """Whether a group leads only to layers whose first block is still missing."""
        layers = [layer for layer in self.done if within(layer, path)]
        return bool(layers) and all(self.done[k] == 0 < self.total[k] for k in layers)

    def common_steps(self, path: str) -> int | None:
        """Return the steps complete in all layers whose time axis a group may share, if any do."""
        shared = (k for k in self.done if within(k, path) or within(path, k))
        return min((self.done[k] for k in shared if not self.lacks(k)), default=None)

    def describe(self) -> str:
        """Return in words what is written of which layer."""
        parts = [
            f"{group} {done} steps so far"
            if group in self.endless
            else f"{group} {done} of {self.total[group]} steps"
            for group, done in self.done.items()
        ]
        more = [f"and {len(parts) - 8} layers more"] if len(parts) > 8 else []
        return ", ".join(parts[:8] + more)


def within(path: str, parent: str) -> bool:
    """Whether a group is another, or one of its descendants."""
    return f"{path}/".startswith(f"{parent.rstrip('/')}/")
