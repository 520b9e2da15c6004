"""Rows of metrics/train.tsv: loss terms averaged over steps and processes, and metrics of the moving average."""

from typing import Any

import torch
from torch import Tensor

from vqlcmd.diffusion.method import Method
from vqlcmd.rng import CounterRNG
from vqlcmd.runtime import distributed
from vqlcmd.runtime.errors import Diverged
from vqlcmd.tokens.shards import Split
from vqlcmd.tokens.streaming import StreamedSplit
from vqlcmd.training.gradients import table_gradients

IMAGES = 256
"""Most images from which the metrics of the moving average and the gradients of the table are computed."""


class Curves:
    """The rows so far, and the loss terms of the steps since the last row.

    `teacher` is the moving average, through which `at_once` images go together. With `student`, the method in training,
    rows also have the gradients of its loss terms with respect to its table.
    """

    def __init__(
        self,
        teacher: Method,
        split: Split | StreamedSplit,
        heldout: Split,
        *,
        seed: int,
        batch_size: int,
        at_once: int,
        student: Method | None = None,
    ):
        self.rows: list[dict[str, float]] = []
        self._teacher, self._split, self._heldout, self._student = teacher, split, heldout, student
        self._seed, self._batch_size, self._at_once = seed, batch_size, at_once
        self._names = ["loss", *teacher.weights, "grad_norm"]
        self._here: list[Tensor] = []
        self._table: Tensor | None = None

    def add(self, terms: Tensor, grad_norm: Tensor) -> None:
        """Add one step's loss and terms, in the order of the weights; they stay on the device, so nothing waits."""
        self._here.append(torch.cat([terms, grad_norm[None]]))

    def gather(self, done: int) -> dict[str, float]:
        """{name: mean} over processes and over the steps from the last row up to `done`.

        Diverged, naming step and terms, where a value is not finite. Training waits for the device only here.
        Every process has to call it at the same step.
        """
        if self._here:
            here = torch.stack(self._here)
            distributed.average([here])
            self._here.clear()
            self._table = here.cpu() if self._table is None else torch.cat([self._table, here.cpu()])
        if self._table is None:
            return {}
        broken = (~self._table.isfinite()).nonzero()
        if len(broken):
            step = int(broken[0, 0])
            wrong = [name for name, value in zip(self._names, self._table[step], strict=True) if not value.isfinite()]
            raise Diverged(
                f"step {done - len(self._table) + 1 + step}: {', '.join(wrong)} is not finite; "
                "a lower train.learning_rate or train.clip may help"
            )
        return dict(zip(self._names, self._table.mean(dim=0).tolist(), strict=True))

    def close_row(self, done: int, learning_rate: float) -> None:
        """Append the row of step `done`, and start the next one."""
        row = self.gather(done) | {"step": done, "learning_rate": learning_rate}
        self.rows.append(row | self._diagnose() | self._gradients() | {"heldout_loss": self._heldout_loss()})
        self._table = None

    def state_dict(self) -> dict[str, Any]:
        """The state after `gather`, which is the same in every process."""
        assert not self._here, "steps that are not gathered yet would be lost"
        return {"rows": self.rows, "table": self._table}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.rows, self._table = saved["rows"], saved["table"]

    def _diagnose(self) -> dict[str, float]:
        tokens, labels = (self._heldout if len(self._heldout) else self._split).first(IMAGES)
        rng = CounterRNG(self._seed, "diagnostics", torch.arange(len(tokens), device=tokens.device))
        return self._teacher.diagnostics(tokens, labels if self._teacher.classes else None, rng)

    def _gradients(self) -> dict[str, float]:
        """`table_gradients` on training images, with the same noise in every row; empty without a student."""
        if self._student is None:
            return {}
        tokens, labels = self._split.first(IMAGES)
        label = labels if self._teacher.classes else None
        return table_gradients(self._student, self._teacher, tokens, label, self._seed, self._batch_size, self._at_once)

    @torch.no_grad()
    def _heldout_loss(self) -> float:
        """The moving average's weighted loss on held-out images, with the same noise in every row; NaN without images.

        Times are stratified over whole batches; if there are fewer images than that, they are used repeatedly.
        """
        tokens, labels = self._heldout.first(IMAGES)
        if not len(tokens):
            return float("nan")
        size = self._batch_size
        total, batches = 0.0, max(len(tokens) // size, 1)
        for batch in range(batches):
            for rows in torch.arange(size, device=tokens.device).split(self._at_once):
                chosen = (batch * size + rows) % len(tokens)
                rng = CounterRNG(self._seed, "heldout", rows, batch)
                label = labels[chosen] if self._teacher.classes else None
                terms = self._teacher(tokens[chosen], label, rng, self._teacher)
                total += sum(self._teacher.weights[name] * float(term.sum()) for name, term in terms.items())
        return total / (batches * size)
