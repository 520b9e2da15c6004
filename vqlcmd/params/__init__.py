"""params.yaml -> frozen, checked models. Every key is required: the file is the one place that holds the values."""

import functools
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import Field, PlainValidator, SerializeAsAny, ValidationError, create_model, model_validator

from vqlcmd.params.errors import lines
from vqlcmd.params.images import Evaluate, Images, Reference, Tokenize
from vqlcmd.params.sections import Discrete, Distill, Network, Schedule, Train
from vqlcmd.params.text import Text, TextEvaluate, TextReference, TextTokenize
from vqlcmd.params.types import (
    Batch,
    Count,
    Dimension,
    LogSnr,
    NonNegative,
    Precision,
    Section,
    Seed,
    Share,
    Steps,
    Whole,
    one_of,
)
from vqlcmd.params.vqgan import Vqgan
from vqlcmd.runtime.errors import ConfigError
from vqlcmd.runtime.yaml_file import read_yaml


class Sample(Section):
    """How many images to sample, how many at once, and the knobs of methods that have some: `sample.METHOD.KNOB`."""

    count: Count
    batch_size: Batch
    precision: Precision

    @classmethod
    @functools.cache
    def complete(cls) -> type["Sample"]:
        """This section with the knobs of the methods, which declare them themselves."""
        knobs = importlib.import_module("vqlcmd.methods").knobs()
        own: dict[str, Any] = {name: (model, ...) for name, model in knobs.items()}
        return create_model("Sample", __base__=Sample, **own)


def _sample(value: object) -> Sample:
    return Sample.complete().model_validate(value)


class Bound(Section):
    """Precision of the bound: noise levels per held-out image."""

    levels: Annotated[Whole, Field(ge=2, le=10**6)]
    batch_size: Batch


class ModelParams(Section):
    """What shapes a trained model, apart from its tokens: the knobs of the paper's tables, and five sections."""

    seed: Seed
    method: Annotated[str, one_of("vqlcmd.methods:METHODS")]
    s: LogSnr
    lambda_rec: NonNegative
    lambda_diff: NonNegative
    lambda_cm: NonNegative
    lambda_ce: NonNegative
    weighting: Annotated[str, one_of("vqlcmd.diffusion.weighting:WEIGHTINGS")]
    consistency_step: Annotated[str, one_of("vqlcmd.diffusion.consistency:STEPS")]
    consistency_time: Annotated[str, one_of("vqlcmd.diffusion.consistency:TIMES")]
    consistency_gradient: Literal["full", "network"]
    drop_reconstruction: bool
    likelihood: bool
    self_conditioning: Annotated[float, Field(ge=0, le=1)]
    drop: Share
    dropping: Annotated[str, one_of("vqlcmd.diffusion.embedding:DROPPING")]
    embedding: Annotated[str, one_of("vqlcmd.diffusion.embedding:KINDS")]
    embedding_dim: Dimension
    train_steps: Count
    schedule: Schedule
    discrete: Discrete
    network: Network
    train: Train
    distill: Distill

    @model_validator(mode="after")
    def _schedule_has_the_shift(self) -> "ModelParams":
        build = importlib.import_module("vqlcmd.diffusion.schedule").build_schedule
        build(shift=self.s, **self.schedule.model_dump())
        return self

    def model_part(self) -> "ModelParams":
        """These parameters alone, without those that a subclass adds."""
        return ModelParams.model_validate({name: getattr(self, name) for name in ModelParams.model_fields})


@dataclass(frozen=True)
class Sampling:
    """How to sample; `own` has the knobs of the method itself. A method rejects a sampler that it does not have.

    `precision` is that of the network's products; whoever decodes images chooses the precision of decoding.
    """

    steps: int
    sampler: str
    guidance: float
    own: Mapping[str, Any]
    precision: str


class RunParams(ModelParams):
    """Parameters of every domain: how a model of tokens is trained, sampled and bounded, whatever they stand for."""

    unit: ClassVar[str] = "sequences"
    """What each row of N tokens stands for, as a plural for messages."""

    domain: Annotated[str, one_of("vqlcmd.params:DOMAINS")]
    weights: str
    sampler: Annotated[str, one_of("vqlcmd.methods:samplers")]
    sample_steps: Steps
    guidance: NonNegative
    sample: Annotated[SerializeAsAny[Sample], PlainValidator(_sample)]
    bound: Bound

    def sampling(self) -> Sampling:
        """The knobs of sampling, with those of the chosen method."""
        own = self.sample.model_dump().get(self.method, {})
        return Sampling(self.sample_steps, self.sampler, self.guidance, own, self.sample.precision)

    @model_validator(mode="after")
    def _trainable(self) -> "RunParams":
        if self.guidance and not self.train.use_classes:
            raise ValueError(f"guidance {self.guidance} needs classes: set train.use_classes to true or guidance to 0")
        if self.guidance and not self.train.class_drop:
            raise ValueError(f"guidance {self.guidance} needs train.class_drop above 0, which trains the null class")
        if max(self.train.snapshots, default=0) > self.train_steps:
            raise ValueError(f"train.snapshots {self.train.snapshots} go beyond train_steps: remove those that do")
        if self.weights not in self.train.kept:
            raise ValueError(f"weights {self.weights} is not one of {', '.join(self.train.kept)}, which training keeps")
        if not (self.lambda_rec or self.lambda_diff or self.lambda_cm or self.lambda_ce):
            raise ValueError("lambda_rec, lambda_diff, lambda_cm, lambda_ce are all 0: set one above 0")
        return self


class Params(RunParams):
    """All of params.yaml for tokens that stand for images."""

    unit = "images"

    dataset: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
    images: Images
    vqgan: Vqgan
    tokenize: Tokenize
    reference: Reference
    evaluate: Evaluate

    @model_validator(mode="after")
    def _tokenizer_fits(self) -> "Params":
        if self.vqgan.checkpoint and self.vqgan.init:
            raise ValueError("vqgan.checkpoint is taken as it is and vqgan.init is trained further: set one to null")
        fitted = self.vqgan.checkpoint is None and self.vqgan.init is None
        factor = 2 ** (len(self.vqgan.ch_mult) - 1)
        if fitted and self.images.size % factor:
            raise ValueError(
                f"images.size {self.images.size} must be a multiple of {factor}, "
                f"which a VQGAN with {len(self.vqgan.ch_mult)} entries in vqgan.ch_mult divides by"
            )
        if fitted and self.embedding == "codebook" and self.embedding_dim != self.vqgan.embed_dim:
            raise ValueError(
                f"embedding_dim {self.embedding_dim} must equal vqgan.embed_dim {self.vqgan.embed_dim} "
                "with `embedding: codebook`"
            )
        return self


class TextParams(RunParams):
    """All of params.yaml for tokens that stand for text."""

    unit = "blocks"

    dataset: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
    text: Text
    tokenize: TextTokenize
    reference: TextReference
    evaluate: TextEvaluate

    def language_model(self) -> ModelParams:
        """Parameters of the autoregressive model that measures samples; `reference` alone decides its weights."""
        own = self.reference.proxy.model_dump()
        known = {name: own[name] for name in Train.model_fields if name in own}
        usual = {"weight_decay": None, "betas": None, "use_classes": False, "precision": "float32"}
        watched = {"snapshots": [], "keep_best": False, "sample_every": 0, "table_gradients": False}
        update = {
            "method": "autoregressive",
            "seed": self.reference.seed,
            "train_steps": self.reference.proxy.steps,
            "embedding_dim": self.reference.proxy.embedding_dim,
            "network": self.reference.proxy.network,
            "train": self.train.model_copy(update=known | usual | watched),
            "distill": self.distill.model_copy(update={"teacher": None, "sha256": None}),
        }
        return self.model_part().model_copy(update=update)


Kind = TypeVar("Kind", bound=RunParams)

DOMAINS: dict[str, type[RunParams]] = {"images": Params, "text": TextParams}
"""{`domain` in params.yaml, what the tokens stand for: the sections that go with it}.

A domain with its own stages for making tokens and looking at samples derives a class from RunParams, and adds it here.
"""


def load_run(path: Path = Path("params.yaml")) -> RunParams:
    """Reads and checks params.yaml of any domain. Raises ConfigError, a line for each key that is unknown or wrong."""
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds no parameters: copy a preset, for example `cp presets/digits.yaml {path}`")
    return check_run(values, str(path))


def load_params(path: Path = Path("params.yaml")) -> Params:
    """The parameters of a run on images. Raises ConfigError like `load_run`, and for another domain."""
    return _of(Params, load_run(path), str(path))


def load_text(path: Path = Path("params.yaml")) -> TextParams:
    """The parameters of a run on text. Raises ConfigError like `load_run`, and for another domain."""
    return _of(TextParams, load_run(path), str(path))


def check_run(values: dict[str, Any], name: str) -> RunParams:
    """Checks parameters that come from `name`, and returns them. Raises ConfigError like `load_run`."""
    domain = values.get("domain", "images")
    # An unknown domain becomes a one-line error like any other wrong value.
    model = DOMAINS.get(domain, RunParams) if isinstance(domain, str) else RunParams
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(f"{name}: {text}" for text in lines(error.errors(), model))) from None


def check_params(values: dict[str, Any], name: str) -> Params:
    """Checks parameters of a run on images, and returns them. Raises ConfigError like `load_params`."""
    return _of(Params, check_run(values, name), name)


def _of(kind: type[Kind], params: RunParams, name: str) -> Kind:
    if not isinstance(params, kind):
        domain = next(domain for domain, model in DOMAINS.items() if model is kind)
        raise ConfigError(f"{name}: `domain` is {params.domain}, and this is for {domain} alone: set it to {domain}")
    return params
