"""The section `vqgan` of params.yaml: a given tokenizer, or one that is trained."""

import hashlib
from pathlib import PurePath
from typing import Annotated, Literal

from pydantic import Field, model_validator

from vqlcmd.params.types import Batch, Count, Dimension, NonNegative, Rate, Section, Seed, Sha256, Share, Whole


class Discriminator(Section):
    """The discriminator and when it sets in; unused if `vqgan.fit.adversarial` is 0."""

    start: Share
    warmup: Share
    adaptive: bool
    channels: Annotated[Whole, Field(ge=8, le=4096, multiple_of=8)]
    layers: Annotated[Whole, Field(gt=0, le=16)]
    learning_rate: Rate


class VqganFit(Section):
    """Training a VQGAN if no checkpoint is named: weights of the loss terms, phases, pictures, and the run itself."""

    steps: Count
    batch_size: Batch
    learning_rate: Rate
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


class Vqgan(Section):
    """The tokenizer: a checkpoint, or an architecture to train. docs/tokenizers.md has the formats."""

    checkpoint: str | None
    init: str | None
    sha256: Sha256 | None
    config: str | None
    used_codes: str | None
    format: Literal["auto", "own", "taming", "ldm", "llamagen", "unleashing", "maskgit", "diffusers"]
    pixel_range: Literal["auto", "unit", "symmetric"]
    seed: Seed
    ch: Annotated[Whole, Field(gt=0, le=4096)]
    ch_mult: Annotated[list[Annotated[Whole, Field(gt=0, le=64)]], Field(min_length=1, max_length=10)]
    num_res_blocks: Annotated[Whole, Field(gt=0, le=16)]
    attn_resolutions: Annotated[list[Dimension], Field(max_length=10)]
    z_channels: Dimension
    embed_dim: Dimension
    n_embed: Annotated[Whole, Field(ge=2, le=65_536)]
    fit: VqganFit

    def taken(self) -> dict[str, str | None]:
        """What identifies a given tokenizer in later comparisons; of paths, only the file name and a digest."""
        keys = ("checkpoint", "config", "used_codes")
        places = {key: _place(getattr(self, key)) for key in keys}
        return {**places, "format": self.format, "pixel_range": self.pixel_range}


def _place(text: str | None) -> str | None:
    """A path without its folders, which are private, but with a digest that tells different paths apart."""
    if text is None:
        return None
    return f"{PurePath(text).name} ({hashlib.sha256(text.encode(errors='surrogateescape')).hexdigest()[:8]})"
