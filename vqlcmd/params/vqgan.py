"""The section `vqgan` of params.yaml: a tokenizer that is taken, or one that is trained."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from vqlcmd.params.types import Count, NonNegative, Positive, Section, Seed, Sha256, Share, Whole


class Discriminator(Section):
    """The discriminator of a fit and when it comes in; unused where `vqgan.fit.adversarial` is 0."""

    start: Share
    warmup: Share
    adaptive: bool
    channels: Annotated[Whole, Field(ge=8, multiple_of=8)]
    layers: Count
    learning_rate: Positive


class VqganFit(Section):
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


class Vqgan(Section):
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
    n_embed: Annotated[Whole, Field(ge=2, le=65_536)]
    fit: VqganFit
