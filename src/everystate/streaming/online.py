"""`recording_online`: a stream that somebody else drives, written while it goes on."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from everystate.errors import SelectionError
from everystate.recording.discovery import framework_of, layers_before, model_name
from everystate.recording.selection import Select
from everystate.recording.trace import Labels
from everystate.storage.lossy import check_stored
from everystate.storage.writing import writing
from everystate.streaming.options import Streaming
from everystate.streaming.recorder import StreamRecorder
from everystate.streaming.reductions import Reductions
from everystate.streaming.sink import Outline, TraceSink


@contextmanager
def recording_online(
    model: Any,
    select: Select,
    along: str,
    labels: tuple[Labels, Labels],
    options: Streaming,
) -> Iterator[StreamRecorder]:
    """Record every call inside a block as one stream; arguments as of `everystate.recording`.

    Where the block raises, the trace keeps what was recorded until then, and stays incomplete.
    """
    _check(along, options)
    name, framework = framework_of(model)
    layers = layers_before(framework, model)
    select.check_layers(layers)
    check_stored(options.get("stored_as"))
    outline = Outline(model_name(model), name, layers, labels, stored_as=options.get("stored_as"))
    with ExitStack() as stack:
        sinks: list[Any] = []
        if (store := options.get("store")) is not None:
            place = stack.enter_context(writing(store, overwrite=bool(options.get("overwrite"))))
            sinks.append(TraceSink(place, outline, commits_itself=True))
        if (reduce := options.get("reduce")) is not None:
            sinks.append(Reductions(reduce, outline, int(select.every)))
        recorder = StreamRecorder(model_name(model), name, select, sinks, labels)
        try:
            call = partial(framework.call, model)
            with framework.observe(model, recorder), recorder.calling(call):
                yield recorder
        except BaseException:
            recorder.flush()
            raise
        recorder.finish()


def _check(along: str, options: Streaming) -> None:
    if along != "time":
        raise SelectionError(
            f"along={along!r}: store= and reduce= record one stream. Say along='time', or record "
            "without them and save the trace: es.save_trace(rec.trace, path)."
        )
    for name in ("resume", "step", "memory", "chunk", "time_axis", "around"):
        if options.get(name):
            raise SelectionError(
                f"{name}= is for es.record, which runs the model itself; here you call it."
            )
