"""The sections of params.yaml that runs on text have: from files to tokens, the language model of the metrics."""

from typing import Annotated

from pydantic import Field

from vqlcmd.params.sections import Network
from vqlcmd.params.types import Batch, Count, Decays, Dimension, Positive, Rate, Section, Seed, Share, Whole, one_of


class Text(Section):
    """From the files' contents to symbols."""

    reduce: Annotated[str, one_of("vqlcmd.text.corpus:REDUCTIONS")]
    vocabulary: Annotated[str, one_of("vqlcmd.text.vocabulary:KINDS")]
    file: str | None


class TextTokenize(Section):
    """Passages to token shards of blocks."""

    holdout: Share
    block: Annotated[Whole, Field(ge=1, le=2**20)]
    passage: Count
    shard_blocks: Count


class ProxyLanguageModel(Section):
    """The autoregressive model whose perplexity samples are measured by."""

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
    """What is known of the real text: a language model of it, and what compressors make of it."""

    seed: Seed
    proxy: ProxyLanguageModel
    compressors: list[Annotated[str, one_of("vqlcmd.text_metrics.compressors:COMPRESSORS")]]
    batch_size: Batch


class TextEvaluate(Section):
    """The numbers of samples."""

    ngrams: Annotated[Whole, Field(ge=1, le=64)]
    copied: Count
    shown: Count
    batch_size: Batch
