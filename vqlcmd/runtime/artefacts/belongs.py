"""Whether artefacts belong together: each says what it is and what it was made from, and readers of two compare them.

DVC keeps them together in `dvc repro`; by hand, or after half a pipeline, any two may lie beside each other.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from vqlcmd.runtime.errors import DataError
from vqlcmd.runtime.files import sha256, write_json

NOT_OF_A_PICTURE = ("flip", "skip_broken")
"""Keys of the section `images` that say which pictures count, not what one looks like."""
WORDS = {
    "tokenizer": "different tokenizers",
    "tokens": "different tokens",
    "model": "different models",
    "samples": "different samples",
    "reference": "different references",
    "dataset": "different data sets",
    "images": "images of different settings",
}


@dataclass(frozen=True)
class Artefact:
    """A file or folder, and {name: digest} of itself and of what it was made from; None if it does not say."""

    name: str
    path: Path
    origin: Mapping[str, Any]


def check_belong(*artefacts: Artefact) -> None:
    """Raises DataError if two of them come from different tokenizers, tokens, models, data sets or image settings.

    Also raises it if one of them does not say which it comes from, because another version made it.
    """
    for one, other in combinations(artefacts, 2):
        for what in WORDS:
            if what not in one.origin or what not in other.origin:
                continue
            for each in (one, other):
                if each.origin[what] is None:
                    raise DataError(f"{each.path} does not say {_unsaid(what)}, it is of another version: `dvc repro`")
            if one.origin[what] != other.origin[what]:
                raise DataError(
                    f"{one.path} and {other.path} do not belong together, they come from {WORDS[what]}: run `dvc repro`"
                )


def note_origin(path: Path, params: Mapping[str, Any], *artefacts: Artefact) -> None:
    """Writes down what numbers or pictures were made from, for `vqlcmd report`: [{artefact: digest}, parameters]."""
    digests = {each.name: each.origin[each.name] for each in artefacts}
    # A list, because DVC does not look for metrics in one.
    write_json(path, [digests, dict(params)])


def tokenizer(path: Path) -> Artefact:
    """The artefact of the tokenizer in a file."""
    return Artefact("tokenizer", path, {"tokenizer": sha256(path)})


def tokens(path: Path, header: Mapping[str, Any]) -> Artefact:
    """The artefact of the tokens in a folder, from their header."""
    return Artefact(
        "tokens",
        path,
        {
            "tokenizer": header.get("vqgan_digest"),
            "tokens": header_digest(header),
            "dataset": _within(header, "manifest", "digest"),
            "images": _picture(header.get("images")),
        },
    )


def model(path: Path, about: Mapping[str, Any]) -> Artefact:
    """The artefact of the model in a file, from what the file says about it."""
    made_from = {"tokenizer": about.get("vqgan_digest"), "tokens": about.get("tokens_digest")}
    return Artefact("model", path, {**made_from, "model": sha256(path)})


def samples(path: Path, header: Mapping[str, Any]) -> Artefact:
    """The artefact of the samples in a folder, from their header."""
    said = {"tokenizer": "vqgan_digest", "tokens": "tokens_digest", "model": "model_digest"}
    return Artefact(
        "samples", path, {"samples": header_digest(header), **{what: header.get(key) for what, key in said.items()}}
    )


def pairs(path: Path, about: Mapping[str, Any]) -> Artefact:
    """The artefact of samples beside training images, from what their file says."""
    return Artefact("pairs", path, {"samples": about.get("samples_digest")})


def reference(path: Path, about: Mapping[str, Any]) -> Artefact:
    """The artefact of the reference, what evaluation knows of the real images, from what its file says about it."""
    made_from = about.get("made_from")
    return Artefact(
        "reference",
        path,
        {
            "reference": sha256(path / "features.safetensors"),
            "tokenizer": _within(about, "made_from", "vqgan_digest"),
            "dataset": _within(about, "made_from", "manifest"),
            "images": _picture(made_from.get("images")) if isinstance(made_from, Mapping) else None,
        },
    )


def header_digest(header: Mapping[str, Any]) -> str:
    """A digest of all that a header of token shards says and so, through the digests in it, of the shards."""
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()


def _picture(images: Any) -> Any:
    if not isinstance(images, Mapping):
        return None
    return {key: value for key, value in images.items() if key not in NOT_OF_A_PICTURE}


def _within(values: Mapping[str, Any], *keys: str) -> Any:
    found: Any = values
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _unsaid(what: str) -> str:
    return "what images it is of" if what in ("dataset", "images") else f"which {what} it was made from"
