"""params.yaml -> frozen, checked models. Every key is required: the file is the one place that holds the values."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from vqlcmd.runtime.errors import ConfigError
from vqlcmd.runtime.param_errors import line
from vqlcmd.runtime.param_types import Colour, Sha256
from vqlcmd.runtime.yaml_file import read_yaml


def _whole(value: object) -> object:
    # `-S train_steps=1e3` arrives as 1000.0.
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _metric(value: str) -> str:
    # By their names alone: no stage but one imports them.
    folder = Path(__file__).parent / "evaluation" / "metrics"
    known = sorted(file.stem for file in folder.glob("*.py") if file.stem != "__init__")
    if value not in known:
        raise ValueError(f"{value!r} is not one of {', '.join(known)}")
    return value


Count = Annotated[int, BeforeValidator(_whole), Field(gt=0)]
Seed = Annotated[int, BeforeValidator(_whole), Field(ge=0, lt=2**32)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]
Decays = Annotated[list[Share], BeforeValidator(lambda v: v if isinstance(v, list) else [v]), Field(min_length=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Metric = Annotated[str, AfterValidator(_metric)]
Extractor = Literal["proxy", "inception", "efficientnet", "dinov2", "clip", "vgg16"]
"""Networks whose features metrics rest on, and which end their names."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Images(_Section):
    """How pictures become squares: shared by the tokenizer, the tokens and the reference."""

    size: Annotated[int, BeforeValidator(_whole), Field(ge=8, le=4096)]
    resize: Literal["bilinear", "bicubic", "box", "lanczos", "bilinear_no_antialias"]
    crop: Literal["center", "random", "adm", "ten_crop"]
    flip: bool
    background: Colour
    skip_broken: bool

    @model_validator(mode="after")
    def _no_doubles(self) -> "Images":
        if self.crop == "ten_crop" and self.flip:
            raise ValueError("crop ten_crop has the mirror images already: set flip to false")
        if self.crop == "ten_crop" and self.size < 10:
            raise ValueError(f"crop ten_crop leaves no margin around size {self.size}: set it to 10 or more")
        return self


class Discriminator(_Section):
    """The discriminator of a fit and when it comes in; unused where `vqgan.fit.adversarial` is 0."""

    start: Share
    warmup: Share
    adaptive: bool
    channels: Annotated[int, BeforeValidator(_whole), Field(ge=8, multiple_of=8)]
    layers: Count
    learning_rate: Positive


class VqganFit(_Section):
    """Training a VQGAN where no checkpoint is named: weights of its terms, its acts, its pictures, its run."""

    steps: Count
    batch_size: Count
    learning_rate: Positive
    l1: NonNegative
    l2: NonNegative
    perceptual: NonNegative
    perceptual_network: Literal["none", "efficientnet", "lpips"]
    adversarial: NonNegative
    discriminator: Discriminator
    commitment: NonNegative
    codebook: NonNegative
    smoothing: Share
    restart: Share
    unit_codes: bool
    continuous_fraction: Share
    decoder_only_fraction: Annotated[float, Field(ge=0, le=0.8)]
    crop_margin: Annotated[float, Field(ge=0, le=1)]
    flip: bool
    use_heldout: bool
    limit: Count
    ema: Share
    precision: Literal["float32", "bf16"]
    log_every: Count
    save_every: Count

    @model_validator(mode="after")
    def _something_to_learn(self) -> "VqganFit":
        if not self.l1 and not self.l2:
            raise ValueError("l1 and l2 are both 0, and nothing holds a picture to its own colours: set one above 0")
        if self.perceptual and self.perceptual_network == "none":
            raise ValueError(
                f"perceptual {self.perceptual:g} needs a perceptual_network: efficientnet or lpips, or set it to 0"
            )
        if self.continuous_fraction + self.decoder_only_fraction >= 1:
            raise ValueError(
                f"continuous_fraction {self.continuous_fraction:g} and decoder_only_fraction "
                f"{self.decoder_only_fraction:g} leave no steps to learn codes in: their sum must be below 1"
            )
        return self


class Vqgan(_Section):
    """The tokenizer: a checkpoint, or an architecture to fit. docs/tokenizers.md has the formats."""

    checkpoint: str | None
    init: str | None
    sha256: Sha256 | None
    config: str | None
    format: Literal["auto", "own", "taming", "ldm", "llamagen", "unleashing", "maskgit", "diffusers"]
    pixel_range: Literal["auto", "unit", "symmetric"]
    seed: Seed
    ch: Count
    ch_mult: list[Count]
    num_res_blocks: Count
    attn_resolutions: list[Count]
    z_channels: Count
    embed_dim: Count
    n_embed: Annotated[int, BeforeValidator(_whole), Field(ge=2, le=65_536)]
    fit: VqganFit


class Tokenize(_Section):
    """Images to token shards."""

    holdout: Share
    shard_images: Count
    batch_size: Count


class Schedule(_Section):
    """The ends of the noise schedule, in log SNR."""

    log_snr_min: Finite
    log_snr_max: Finite

    @model_validator(mode="after")
    def _ordered(self) -> "Schedule":
        if self.log_snr_min >= self.log_snr_max:
            raise ValueError(
                f"log_snr_min {self.log_snr_min:g} must lie below log_snr_max {self.log_snr_max:g}: lower it"
            )
        return self


class Network(_Section):
    """The transformer."""

    layers: Count
    heads: Count
    width: Count
    dropout: Share

    @model_validator(mode="after")
    def _divisible(self) -> "Network":
        if self.width % self.heads:
            raise ValueError(
                f"width {self.width} must be a multiple of heads {self.heads}: choose {self.heads} times a number"
            )
        if self.width % 2:
            raise ValueError(f"width {self.width} must be even: half sines, half cosines")
        return self


class Train(_Section):
    """Optimisation."""

    batch_size: Count
    learning_rate: Positive
    embedding_lr_scale: Positive
    warmup: Annotated[int, BeforeValidator(_whole), Field(ge=0)]
    final_lr_ratio: Annotated[float, Field(ge=0, le=1)]
    weight_decay: NonNegative | None
    betas: list[Share] | None
    clip: Positive
    ema: Decays
    snapshots: list[Count]
    init_std: Positive
    use_classes: bool
    class_drop: Share
    precision: Literal["float32", "bf16"]
    log_every: Count
    save_every: Count
    logger: Literal["none", "tensorboard", "wandb", "trackio"]

    @model_validator(mode="after")
    def _fitting_lists(self) -> "Train":
        if self.betas is not None and len(self.betas) != 2:
            raise ValueError(f"betas {self.betas} must be two numbers, such as [0.9, 0.999], or null")
        if len(set(self.ema)) < len(self.ema):
            raise ValueError(f"ema {self.ema} must be different decays: remove one")
        return self


class Discrete(_Section):
    """The chains of d3pm and vq_diffusion."""

    timesteps: Annotated[int, BeforeValidator(_whole), Field(ge=2)]
    schedule: Literal["released", "paper"]


class Sample(_Section):
    """How many images, how many at once, and what single methods have beside the sampler."""

    count: Count
    batch_size: Count
    temperature: NonNegative
    truncation: Annotated[float, Field(gt=0, le=1)]


class Bound(_Section):
    """Precision of the bound: noise levels per held-out image."""

    levels: Annotated[int, BeforeValidator(_whole), Field(ge=2)]
    batch_size: Count


class ProxyFit(_Section):
    """The small classifier that takes Inception's place where its weights are not at hand."""

    limit: Count
    steps: Count
    batch_size: Count
    learning_rate: Positive


class Reference(_Section):
    """Features of real images and of their reconstructions."""

    seed: Seed
    limit: Count | None
    statistics: str | None
    batch_size: Count
    proxy: ProxyFit


class Kid(_Section):
    """The kernel distance: a mean over `subsets` of `subset_size` images of each side."""

    subsets: Count
    subset_size: Annotated[int, BeforeValidator(_whole), Field(gt=1)]


class Nearest(_Section):
    """Samples against training images: `quantile` of the held-out images' distances, and pairs in the picture."""

    quantile: Annotated[float, Field(gt=0, lt=1)]
    pairs: Count


class Evaluate(_Section):
    """The metrics."""

    metrics: list[Metric]
    features: Literal["proxy", "inception", "efficientnet", "dinov2", "clip"]
    precision_features: Extractor
    precision_images: Count
    neighbours: Count
    kid: Kid
    nearest: Nearest
    batch_size: Count


class ModelParams(_Section):
    """What shapes a trained model, apart from its tokens: the knobs of the paper's tables, and three sections."""

    seed: Seed
    method: Literal["lcmd", "d3pm", "vq_diffusion", "maskgit", "autoregressive"]
    s: Finite
    lambda_rec: NonNegative
    lambda_diff: NonNegative
    lambda_cm: NonNegative
    lambda_ce: NonNegative
    weighting: Literal["simple", "vlb"]
    drop: Share
    dropping: Literal["fixed", "random", "linear"]
    embedding: Literal["learned", "unit", "codebook"]
    embedding_dim: Count
    train_steps: Count
    schedule: Schedule
    discrete: Discrete
    network: Network
    train: Train

    def model_part(self) -> "ModelParams":
        """These alone, without what a subclass adds."""
        return ModelParams.model_validate({name: getattr(self, name) for name in ModelParams.model_fields})


@dataclass(frozen=True)
class Sampling:
    """How to sample. A method leaves what it does not have unread, but refuses a sampler that is not its own."""

    steps: int = 50
    sampler: str = "ancestral"
    guidance: float = 0.0
    temperature: float = 4.5
    """MaskGIT's: of the Gumbel noise on what is revealed first."""
    truncation: float = 0.86
    """VQ-Diffusion's: codes are kept while the mass before them is below this share."""


class Params(ModelParams):
    """All of params.yaml."""

    dataset: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
    sampler: Literal["ancestral", "ddim"]
    sample_steps: Count
    guidance: NonNegative
    images: Images
    vqgan: Vqgan
    tokenize: Tokenize
    sample: Sample
    bound: Bound
    reference: Reference
    evaluate: Evaluate

    def sampling(self) -> Sampling:
        """The knobs of sampling together."""
        return Sampling(self.sample_steps, self.sampler, self.guidance, self.sample.temperature, self.sample.truncation)

    @model_validator(mode="after")
    def _possible(self) -> "Params":
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
        if self.guidance and not self.train.use_classes:
            raise ValueError(f"guidance {self.guidance} needs classes: set train.use_classes to true or guidance to 0")
        if self.guidance and not self.train.class_drop:
            raise ValueError(f"guidance {self.guidance} needs train.class_drop above 0, which trains the null class")
        if max(self.train.snapshots, default=0) > self.train_steps:
            raise ValueError(f"train.snapshots {self.train.snapshots} go beyond train_steps: remove those that do")
        if not (self.lambda_rec or self.lambda_diff or self.lambda_cm or self.lambda_ce):
            raise ValueError("lambda_rec, lambda_diff, lambda_cm, lambda_ce are all 0: set one above 0")
        return self


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check params.yaml. ConfigError: one line for each key that is unknown, missing or out of range."""
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds no parameters: copy a preset, for example `cp presets/digits.yaml {path}`")
    return check_params(values, str(path))


def check_params(values: dict[str, Any], name: str) -> Params:
    """Check parameters that come from `name`. ConfigError like load_params."""
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(f"{name}: {line(problem, Params)}" for problem in error.errors())) from None
