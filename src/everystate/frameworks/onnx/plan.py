"""What is shown of a model: its recurrent nodes, loops and layers, each by its path."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from everystate.frameworks.onnx.files import Source, Tensor
from everystate.frameworks.onnx.finding import find, opset_of
from everystate.frameworks.onnx.graph import Exposure
from everystate.frameworks.onnx.loops import ShownLoop, show_loop
from everystate.frameworks.onnx.recurrent import ShownNode, is_recurrent, show_node
from everystate.frameworks.onnx.shown_steps import ShownSteps, show_steps
from everystate.frameworks.onnx.stepwise import can_be_stepped

Shown = ShownNode | ShownLoop | ShownSteps


@dataclass(frozen=True, eq=False)
class Plan:
    """A model that shows what is wanted of it.

    Parameters
    ----------
    source : Source
        The model, changed.
    outputs : list of str
        What it puts out beside its own outputs.
    shown : list of ShownNode, ShownLoop or ShownSteps
        What makes observations of these.
    """

    source: Source
    outputs: list[str]
    shown: Sequence[Shown]

    def holds(self, results: Mapping[str, Tensor]) -> bool:
        """Whether nodes that are run step by step gave what they give else."""
        trials = [s.trial for s in self.shown if isinstance(s, ShownNode) and s.trial]
        return all(trial.holds(results) for trial in trials)

    @property
    def hint(self) -> str:
        """What may be the reason if onnxruntime fails, though the model alone does not."""
        loops = [s.path for s in self.shown if s.levels or isinstance(s, ShownLoop)]
        if not loops:
            return ""
        return (
            f" What loops carry is shown only if its shape stays from iteration to iteration; if "
            f"that is why, leave out {', '.join(loops)}: select=es.Select(layers=...)."
        )


def plan(
    source: Source,
    wants: Callable[[str], bool],
    rows_of: Callable[[str], int] | None = None,
) -> Plan:
    """Make a model show its recurrent nodes and loops.

    Parameters
    ----------
    source : Source
        Its graph is changed: outputs are added.
    wants : callable
        Whether a leaf's path is wanted.
    rows_of : callable, optional
        How many rows an input has, 1 if that is not known: nodes are run step by step where
        that shows more and is worth while. None: they are not.
    """
    exposure = Exposure(source)
    shown: list[Shown] = []
    for found in (f for f in find(source) if any(wants(leaf) for leaf in f.leaves)):
        path, scope, node = found.path, found.scope, found.node
        if found.written:
            layers = [layer for layer in found.written if wants(layer.path)]
            shown += [show_steps(layer, exposure) for layer in layers]
        elif is_recurrent(node):
            stepwise = rows_of is not None and can_be_stepped(
                scope, node, opset_of(source), rows_of(node.input[0])
            )
            shown.append(show_node(path, scope, node, exposure, stepwise=stepwise))
        else:
            shown.append(show_loop(path, scope, node, exposure))
    return Plan(source, exposure.outputs, shown)
