"""The sections of params.yaml for runs on images: from pictures to crop views and tokens, and the metrics."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from vqlcmd.params.types import (
    Batch,
    Colour,
    Count,
    Extractor,
    Metric,
    Precision,
    Rate,
    Section,
    Seed,
    Share,
    Whole,
)


class Images(Section):
    """How pictures are cropped: shared by the tokenizer, the tokens and the reference."""

    size: Annotated[Whole, Field(ge=8, le=4096)]
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


class Tokenize(Section):
    """How images become shards of tokens."""

    holdout: Share
    shard_images: Count
    batch_size: Batch
    precision: Precision


class ProxyFit(Section):
    """The training of the small classifier that replaces Inception if its weights are not at hand."""

    limit: Count
    steps: Count
    batch_size: Batch
    learning_rate: Rate


class Reference(Section):
    """Features of real images and of their reconstructions."""

    seed: Seed
    limit: Count | None
    statistics: str | None
    batch_size: Batch
    precision: Precision
    proxy: ProxyFit


class Kid(Section):
    """The kernel distance (KID): a mean over `subsets` of `subset_size` images of each side."""

    subsets: Count
    subset_size: Annotated[Whole, Field(gt=1, le=10**9)]


class Nearest(Section):
    """Samples nearest to training images: `quantile` of the held-out images' distances, and how many pairs to show."""

    quantile: Annotated[float, Field(gt=0, lt=1)]
    pairs: Count


class Evaluate(Section):
    """The metrics."""

    metrics: list[Metric]
    features: Literal["proxy", "inception", "efficientnet", "dinov2", "clip"]
    precision_features: Extractor
    precision_images: Count
    neighbours: Count
    kid: Kid
    nearest: Nearest
    batch_size: Batch
    precision: Precision
