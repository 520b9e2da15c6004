"""What a run on text costs, before it starts: from params.yaml, the bytes of its files and the size of its vocabulary.

Shapes: N tokens a block, K codes, P parameters.
"""

from dataclasses import dataclass

from vqlcmd.costs.flops import MethodCosts, Sizes
from vqlcmd.costs.memory import FLOAT, TrainingMemory, method_costs, training_memory
from vqlcmd.costs.plan import Work
from vqlcmd.diffusion.collapse import statistics_memory
from vqlcmd.params import TextParams
from vqlcmd.tokens.streaming import BYTES_BESIDE_TOKENS

AUTOMATON = 1000
"""Bytes, roughly, that the search for copied runs holds for each token of the samples."""


@dataclass(frozen=True)
class TextPlan:
    """A run on `blocks` blocks, held-out ones included: its parameters, and the costs that follow."""

    params: TextParams
    blocks: int
    costs: MethodCosts
    language_model: MethodCosts

    one = "a block"

    @property
    def sizes(self) -> Sizes:
        """The shape of the network."""
        return self.costs.sizes

    def rows(self) -> list[tuple[str, float, str]]:
        """Further rows of the plan: (name, FLOPs or number of parameters, note)."""
        return [
            ("language model", self.language_model.parameters, "parameters, of the one that samples are measured by"),
            ("its training", self.language_model.training, ""),
        ]

    def memory(self, on_cpu: bool) -> TrainingMemory:
        """The memory of training in float32; in bf16 the activations take less."""
        return training_memory(self.costs, on_cpu)

    def disk(self) -> dict[str, int]:
        """Bytes of each file or folder that the run leaves."""
        block = 2 * self.sizes.tokens + BYTES_BESIDE_TOKENS
        models = self._averages + len(self.params.train.snapshots)
        return {
            "data/tokens": self.blocks * block,
            "data/model": models * FLOAT * self.costs.parameters,
            "data/samples": self.params.sample.count * block,
            "data/reference": FLOAT * self.language_model.parameters,
        }

    def state(self) -> int:
        """Bytes of an unfinished training's state: the model, its moving averages, and two moments of its gradients."""
        return (3 + self._averages) * FLOAT * self.costs.parameters

    @property
    def _averages(self) -> int:
        return len(self.params.train.ema) + self.params.train.keep_best

    def evaluation_memory(self) -> int:
        """Bytes that evaluate holds: the training text, and the automata of the samples and of held-out blocks."""
        return self.disk()["data/tokens"] + AUTOMATON * 2 * self._copied * self.sizes.tokens

    @property
    def _copied(self) -> int:
        return min(self.params.evaluate.copied, self.params.sample.count)

    def statistics_memory(self) -> int:
        """Bytes that the distances of all embeddings take, computed in blocks, at each row of the curves."""
        return statistics_memory(self.sizes.codes)

    def work(self) -> dict[str, Work]:
        """What each stage computes. Compressors and the search for copied runs are left out."""
        params, proxy = self.params, self.params.reference.proxy
        held = self.blocks * params.tokenize.holdout
        return {
            "train": Work(
                params.train_steps * params.train.batch_size * self.costs.training, params.train.precision, shared=True
            ),
            "sample": Work(params.sample.count * self.costs.sampling, shared=True),
            "bound": Work(held * self.costs.bound),
            "reference": Work(
                proxy.steps * proxy.batch_size * self.language_model.training + held * self.language_model.bound
            ),
            "evaluate": Work(2 * params.sample.count * self.language_model.bound),
        }


def text_plan(params: TextParams, blocks: int, codes: int) -> TextPlan:
    """The plan of a run with `params` on `blocks` blocks of tokens, with `codes` different symbols."""
    how = params.sampling()
    known = {"tokens": params.tokenize.block, "codes": codes, "codebook_dim": 0, "classes": 0}
    costs = method_costs(params.model_part(), how, levels=params.bound.levels, **known)
    return TextPlan(params, blocks, costs, method_costs(params.language_model(), how, levels=1, **known))
