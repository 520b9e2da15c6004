"""hf://USER/NAME: a repository of the Hugging Face hub, through the hub's own client, the optional package `hub`.

The client's environment variables apply: HF_ENDPOINT for another server, HF_HOME for the cache, HF_TOKEN for private
repositories, HF_HUB_OFFLINE=1 to use the cache alone.
"""

import importlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vqlcmd.runtime.artefacts import exported
from vqlcmd.runtime.errors import ConfigError, DataError, shown

SCHEME = "hf://"
PLACE = re.compile(r"hf://(?P<repo>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>\w[\w.-]*))?(?:/(?P<path>[^?#]+))?")
BESIDE = ("*.json", "*.yaml")
"""Files that describe weights in the same folder."""
WEIGHTS = (exported.TOKENIZER, "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
"""Names under which a folder of the hub may hold a tokenizer."""


@dataclass(frozen=True)
class Place:
    """A repository, a branch, tag or commit of it (None: the newest), and a path in it ("": all of it)."""

    repo: str
    revision: str | None
    path: str


def is_place(text: str) -> bool:
    """Whether `text` is written as a place on the hub rather than as a path."""
    return text.lower().startswith(SCHEME)


def parse(text: str) -> Place:
    """Parses hf://USER/NAME[@REVISION][/PATH]. Raises ConfigError for anything else."""
    found = PLACE.fullmatch(text)
    path = (found["path"] or "").strip("/") if found else ""
    if found is None or any(part in ("", ".", "..") for part in path.split("/")[: len(path)]):
        raise ConfigError(
            f"{shown(text)} is no place of the hub: write hf://USER/NAME, hf://USER/NAME@REVISION or "
            "hf://USER/NAME/FILE"
        )
    return Place(found["repo"], found["revision"], path)


def local(folder: str | Path) -> Path:
    """The folder on this machine: `folder`, or the download of a model on the hub. Errors as in `model_folder`."""
    return model_folder(str(folder)) if is_place(str(folder)) else Path(folder)


def model_folder(text: str) -> Path:
    """The folder of the model hf://USER/NAME with all files it needs, from the hub's cache or downloaded into it.

    Raises ConfigError if `text` is not such a place or the client is not installed, and DataError if the hub does not
    have the model.
    """
    place = parse(text)
    if place.path:
        raise ConfigError(f"{shown(text)} names a file: a model is the whole of hf://{place.repo}")
    folder = _snapshot(text, place, [exported.ABOUT, *exported.CHECKED, *exported.OF_TEXT])
    if not (folder / exported.ABOUT).is_file():
        raise DataError(f"{text} holds no {exported.ABOUT}, so `vqlcmd publish` did not make it: name another one")
    return folder


def checkpoint(text: str) -> Path:
    """The file or folder of a tokenizer in hf://USER/NAME[/PATH], with its configurations beside it.

    Errors as above.
    """
    place = parse(text)
    start = f"{place.path}/" if place.path else ""
    parent = "" if "/" not in place.path else f"{place.path.rpartition('/')[0]}/"
    wanted = [f"{start}{name}" for name in (*WEIGHTS, *BESIDE)]
    if place.path:
        wanted += [place.path, *(f"{parent}{name}" for name in BESIDE)]
    folder = _snapshot(text, place, wanted)
    found = folder / place.path
    if not (found.is_file() or any((found / name).is_file() for name in WEIGHTS)):
        what = "there is no such file in it" if place.path else f"it holds neither {WEIGHTS[0]} nor {WEIGHTS[1]}"
        raise DataError(f"{text}: {what}: name the file of a tokenizer, {SCHEME}{place.repo}/FILE")
    exported.check(folder, [exported.TOKENIZER])
    return found


def publish(text: str, folder: Path, *, private: bool) -> str:
    """Uploads an exported folder to the repository USER/NAME, which is created if needed; returns the commit's address.

    All files are one commit. Raises ConfigError and DataError as above, and DataError if the folder was not made by
    `vqlcmd export`.
    """
    place = parse(text)
    if place.path or place.revision:
        raise ConfigError(f"{shown(text)} is no whole repository: publish to {SCHEME}{place.repo}")
    if not (folder / exported.ABOUT).is_file():
        raise DataError(f"{folder} holds no {exported.ABOUT}: `vqlcmd export {folder}` makes such a folder")
    exported.check(folder, exported.OF_TEXT if (folder / exported.VOCABULARY).is_file() else exported.CHECKED)
    with _errors(text) as hub:
        api = hub.HfApi()
        api.create_repo(place.repo, private=private, exist_ok=True)
        # Files of an earlier version that this one lacks would stay otherwise.
        done = api.upload_folder(
            repo_id=place.repo, folder_path=folder, commit_message="A model of vqlcmd", delete_patterns=["*"]
        )
        return str(done.commit_url)


def _snapshot(text: str, place: Place, wanted: list[str]) -> Path:
    with _errors(text) as hub:
        return Path(hub.snapshot_download(place.repo, revision=place.revision, allow_patterns=wanted))


@contextmanager
def _errors(text: str) -> Iterator[Any]:
    """Yields the hub's client; its exceptions become errors of one line."""
    try:
        hub = importlib.import_module("huggingface_hub")
        errors = importlib.import_module("huggingface_hub.errors")
    except ImportError:
        raise ConfigError(
            f"{shown(text)} needs the hub's client, which is not installed: pip install 'vqlcmd[hub]'"
        ) from None
    try:
        yield hub
    except errors.GatedRepoError:
        raise DataError(f"{text} is there for those who ask its owner: ask on its page, then set HF_TOKEN") from None
    except errors.RepositoryNotFoundError:
        raise DataError(
            f"{text}: the hub has no such repository, or it is private: check the name, or set HF_TOKEN"
        ) from None
    except errors.RevisionNotFoundError:
        raise DataError(f"{text}: the repository has no such revision: name a branch, a tag or a commit") from None
    except errors.LocalEntryNotFoundError:
        raise DataError(
            f"{text} is not in the hub's cache, and the hub cannot be reached: try again with a network"
        ) from None
    # RuntimeError: from an upload, with the reason as its cause.
    except (errors.HfHubHTTPError, errors.HTTPError, errors.HFValidationError, OSError, RuntimeError) as error:
        reason = shown(error.__cause__ or error)
        raise DataError(f"{text}: the hub's client gives up ({reason}): try again, or check HF_ENDPOINT") from None
