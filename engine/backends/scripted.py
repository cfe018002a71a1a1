"""A backend that answers by rule instead of by network: tests and dry runs."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from engine.backends.base import Signature, Tensor, check_tensors
from engine.backends.signatures import read_signature

AnswerRow = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]  # tensors of any shape by name


class ScriptedBackend:
    """Answers each row of a batch by itself.

    Args:
        signature: What it claims to take and give.
        answer: One row of each input, without the batch dimension → one row of each output.
    """

    def __init__(self, signature: Signature, answer: AnswerRow) -> None:
        self._signature = signature
        self._answer = answer

    @property
    def signature(self) -> Signature:
        """What ``run`` takes and gives."""
        return self._signature

    @property
    def description(self) -> str:
        """For logs."""
        return "scripted"

    def warm_up(self) -> None:
        """Do nothing: there is nothing to warm."""

    def run(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Answer; both question and answer must have the shapes that the signature says."""
        check_tensors(self._signature.inputs, tensors, self.description)
        names = [spec.name for spec in self._signature.inputs]
        n_rows = len(tensors[names[0]])
        rows = [self._answer({name: tensors[name][i] for name in names}) for i in range(n_rows)]
        outputs: dict[str, Tensor] = {
            spec.name: np.stack([row[spec.name] for row in rows])
            for spec in self._signature.outputs
        }
        check_tensors(self._signature.outputs, outputs, self.description)
        return outputs

    def close(self) -> None:
        """Do nothing: there is nothing to free."""


def open_dry_run(model_path: Path) -> ScriptedBackend:
    """A backend that takes what the model takes and answers zeros, so that nothing is ever found.

    A free dimension of an output has the length it has in the first input that names one, so a
    localizer's answer is as long as its window.
    """
    signature, _opset = read_signature(model_path)

    def zeros(row: Mapping[str, Tensor]) -> dict[str, Tensor]:  # of any shape, no batch dimension
        free = _free_length(signature, row)
        return {
            spec.name: np.zeros([free if n is None else n for n in spec.shape[1:]], spec.dtype)
            for spec in signature.outputs
        }

    return ScriptedBackend(signature, zeros)


def _free_length(signature: Signature, row: Mapping[str, Tensor]) -> int:
    """Length of the first free dimension of a row's inputs, of any shape; 1 if none is free."""
    for spec in signature.inputs:
        for wanted, seen in zip(spec.shape[1:], row[spec.name].shape, strict=True):
            if wanted is None:
                return int(seen)
    return 1
