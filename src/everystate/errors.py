"""Every error everystate raises.

Each class is also the built-in that a caller would catch without knowing us
(``except ValueError``), and each message says what was got, what was expected
and what to try, with the layer's path where there is one.
"""


class EverystateError(Exception):
    """The base of all errors raised on purpose by everystate."""

    def __str__(self) -> str:
        # KeyError and OSError would print the message's repr or its errno.
        return str(self.args[0]) if self.args else ""


class ReplayMismatchError(EverystateError, RuntimeError):
    """The replayed states differ from what the framework computed.

    Nothing of the layer is stored: a wrong gate is worse than none.
    """


class UnsupportedModelError(EverystateError, TypeError):
    """No framework module of everystate knows this kind of model."""


class UnknownLayerError(EverystateError, KeyError):
    """A layer pattern matches no recurrent layer of the model."""


class AmbiguousLayerError(EverystateError, LookupError):
    """Several recurrent layers could be meant, and the choice is the user's."""


class SelectionError(EverystateError, ValueError):
    """A selection asks for something that cannot be: an empty window, an unknown variable."""


class InputError(EverystateError, ValueError):
    """The model's input has the wrong rank, feature count, or is empty."""


class ModelNotFoundError(InputError, FileNotFoundError):
    """There is no file or folder at the path that was given for a model."""


class InputTypeError(EverystateError, TypeError):
    """The model's input has the wrong dtype, device or Python type."""


class UncuttableError(EverystateError, MemoryError):
    """The model cannot run in chunks of time, and run whole it would need too much memory."""


class ResumeError(EverystateError, ValueError):
    """A recording cannot be gone on with: it was of another model, input or selection."""


class NothingRecordedError(EverystateError, RuntimeError):
    """The block ended, or the model ran, without one recurrent layer being called."""


class BusyModelError(EverystateError, RuntimeError):
    """Another thread is recording the model, whose calls could not be told apart."""


class JoinError(EverystateError, ValueError):
    """Calls recorded in one block cannot be joined: their shapes or layers differ."""


class WeightsError(EverystateError, ValueError):
    """A weights file lacks tensors, has misshapen ones, or none of a recurrent layer."""


class AnalysisError(EverystateError, ValueError):
    """An analysis is asked for what its data cannot tell: too few steps, labels that do not fit."""


class DataError(EverystateError, ValueError):
    """A data file cannot be read as a series."""


class TraceNotFoundError(EverystateError, FileNotFoundError):
    """There is nothing at the path of the trace."""


class TraceFormatError(EverystateError, ValueError):
    """What was opened is not a trace of everystate, or of a newer schema."""


class IncompleteTraceError(EverystateError, ValueError):
    """The trace was not written to its end: the writer was stopped, or the disk was full."""


class CorruptTraceError(EverystateError, OSError):
    """The trace's files are damaged: they cannot be read, or fail their checksum."""


class TraceWriteError(EverystateError, OSError):
    """The trace could not be written: the folder is read-only, the disk full, the path taken."""


class ClusterError(EverystateError, ConnectionError):
    """The Dask cluster cannot be reached, or its workers died again and again."""


class MissingDependencyError(EverystateError, ImportError):
    """A package is needed that is not installed; the message names the extra that brings it."""


class EverystateWarning(UserWarning):
    """Something was recorded, but not quite as one would expect; the message says what."""
