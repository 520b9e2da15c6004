"""The sections of params.yaml that shape a model: schedules, network, training."""

import importlib
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, create_model, model_validator

from vqlcmd.params.types import (
    Batch,
    Count,
    Decays,
    Dimension,
    LogSnr,
    NonNegative,
    Positive,
    Rate,
    Section,
    Sha256,
    Share,
    Steps,
    Whole,
    one_of,
)


class Schedule(Section):
    """The noise schedule of lcmd, and its ends in log SNR."""

    name: Annotated[str, one_of("vqlcmd.diffusion.schedule:SCHEDULES")]
    log_snr_min: LogSnr
    log_snr_max: LogSnr

    @model_validator(mode="after")
    def _ordered(self) -> "Schedule":
        if self.log_snr_min >= self.log_snr_max:
            raise ValueError(
                f"log_snr_min {self.log_snr_min:g} must lie below log_snr_max {self.log_snr_max:g}: lower it"
            )
        return self


class Network(Section):
    """The transformer."""

    layers: Annotated[Whole, Field(gt=0, le=10_000)]
    heads: Dimension
    width: Dimension
    dropout: Share
    positions: Literal["sinusoidal", "rotary"]

    @model_validator(mode="after")
    def _divisible(self) -> "Network":
        if self.width % self.heads:
            raise ValueError(
                f"width {self.width} must be a multiple of heads {self.heads}: choose {self.heads} times a number"
            )
        if self.width % 2:
            raise ValueError(f"width {self.width} must be even: half sines, half cosines")
        if self.positions == "rotary" and self.width // self.heads % 2:
            raise ValueError(
                f"width {self.width} over {self.heads} heads is {self.width // self.heads}, and rotary positions need "
                "an even number: change one of the two, or take sinusoidal positions"
            )
        return self


class Train(Section):
    """Training: optimisation, the weights that are kept, and what is logged and saved when."""

    batch_size: Batch
    learning_rate: Rate
    embedding_lr_scale: Positive
    warmup: Annotated[Whole, Field(ge=0, le=10**9)]
    final_lr_ratio: Annotated[float, Field(ge=0, le=1)]
    weight_decay: NonNegative | None
    betas: list[Share] | None
    clip: Positive
    ema: Decays
    snapshots: Annotated[list[Count], Field(max_length=1000)]
    keep_best: bool
    init_std: Positive
    use_classes: bool
    class_drop: Share
    precision: Literal["float32", "bf16"]
    log_every: Count
    sample_every: Annotated[Whole, Field(ge=0, le=10**9)]
    table_gradients: bool
    save_every: Count
    logger: Literal["none", "tensorboard", "wandb", "trackio"]

    @property
    def kept(self) -> list[str]:
        """Names of the weights that a run leaves: the model, its snapshots, averages with other decays, the best."""
        apart = [*(f"snapshots/{step}" for step in self.snapshots), *(f"ema-{each}" for each in self.ema[1:])]
        return ["model", *apart, *(["best"] if self.keep_best else [])]

    @model_validator(mode="after")
    def _fitting_lists(self) -> "Train":
        if self.betas is not None and len(self.betas) != 2:
            raise ValueError(f"betas {self.betas} must be two numbers, such as [0.9, 0.999], or null")
        if len(set(self.ema)) < len(self.ema):
            raise ValueError(f"ema {self.ema} must be different decays: remove one")
        return self


class Distill(Section):
    """Distillation from a frozen teacher, in place of the method's own loss."""

    teacher: str | None
    sha256: Sha256 | None
    steps: Steps


def first_chains() -> dict[str, str]:
    """{method: schedule} for the methods that mask or replace tokens: the first schedule that each lists."""
    found = {}
    for name, place in importlib.import_module("vqlcmd.methods").schedules().items():
        module, _, listed = place.partition(":")
        found[name] = next(iter(getattr(importlib.import_module(module), listed)))
    return found


def _chains(value: object) -> dict[str, str]:
    known = importlib.import_module("vqlcmd.methods").schedules()
    fields: dict[str, Any] = {name: (Annotated[str, one_of(each)], ...) for name, each in known.items()}
    return create_model("Chains", __base__=Section, **fields).model_validate(value).model_dump()


class Discrete(Section):
    """Masking and replacing tokens: steps of the chain, where paths start, and `discrete.schedule.METHOD`."""

    timesteps: Annotated[Whole, Field(ge=2, le=10**6)]
    source: Annotated[str, one_of("vqlcmd.methods.flow_matching:SOURCES")]
    schedule: Annotated[dict[str, str], PlainValidator(_chains)]
