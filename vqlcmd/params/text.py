"""The sections of params.yaml for runs on text: from files to tokens, and the language model behind the metrics."""

from typing import Annotated

from pydantic import Field

from vqlcmd.params.sections import Network
from vqlcmd.params.types import Batch, Count, Decays, Dimension, Positive, Rate, Section, Seed, Share, Whole, one_of


class Text(Section):
    """How the contents of files become symbols."""

    reduce: Annotated[str, one_of("vqlcmd.text.corpus:REDUCTIONS")]
    vocabulary: Annotated[str, one_of("vqlcmd.text.vocabulary:KINDS")]
    file: str | None


class TextTokenize(Section):
    """How passages become shards of blocks of tokens."""

    holdout: Share
    block: Annotated[Whole, Field(ge=1, le=2**20)]
    passage: Count
    shard_blocks: Count


class ProxyLanguageModel(Section):
    """The autoregressive model by whose perplexity samples are measured."""

    steps: Count
    embedding_dim: Dimension
    network: Network
    batch_size: Batch
    learning_rate: Rate
    warmup: Annotated[Whole, Field(ge=0, le=10**9)]
    final_lr_ratio: Annotated[float, Field(ge=0, le=1)]
    clip: Positive
    ema: Decays
    init_std: Positive


class TextReference(Section):
    """What is measured on the real text: a language model of it, and its size by compressors."""

    seed: Seed
    proxy: ProxyLanguageModel
    compressors: list[Annotated[str, one_of("vqlcmd.text_metrics.compressors:COMPRESSORS")]]
    batch_size: Batch


class TextEvaluate(Section):
    """The metrics of samples."""

    ngrams: Annotated[Whole, Field(ge=1, le=64)]
    copied: Count
    shown: Count
    batch_size: Batch
