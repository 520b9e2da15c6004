"""What tells two experiments apart: a digest of their parameters, of the code that they run, and of the data."""

from collections.abc import Sequence
from pathlib import Path

from vqlcmd.params import RunParams
from vqlcmd.runtime import pipeline
from vqlcmd.runtime.resume import fingerprint


def identity_of(params: RunParams, stages: Sequence[str] = ()) -> str:
    """A digest of everything that decides an experiment's result: parameters, code, and the manifest of the data.

    With `stages`, of what decides the results of those; it differs from that of any experiment of the whole pipeline.
    """
    values, root = params.model_dump(mode="json"), Path()
    if not stages:
        return fingerprint(pipeline.parameters(values, root), pipeline.digests(values, root=root))
    run = pipeline.with_needed(stages, root)
    return fingerprint(run, pipeline.parameters(values, root, run), pipeline.digests(values, run, root))


def training_identity(params: RunParams) -> str:
    """A digest of the parameters that decide a model, without those of its tokens, its code and its data."""
    return fingerprint(params.model_part().model_dump(mode="json"))
