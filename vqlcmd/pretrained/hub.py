"""hf://USER/NAME: a repository of the Hugging Face hub, through the hub's own client, the optional package `hub`.

Its environment variables hold: HF_ENDPOINT for another server, HF_HOME for the cache, HF_TOKEN for what is private,
HF_HUB_OFFLINE=1 for the cache alone.
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
"""What tells of a file of weights, in its folder."""
WEIGHTS = (exported.TOKENIZER, "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
"""What holds a tokenizer in a folder of the hub."""


@dataclass(frozen=True)
class Place:
    """A repository, a branch, tag or commit of it (None: the newest), and what is meant in it ("": all of it)."""

    repo: str
    revision: str | None
    path: str


def is_place(text: str) -> bool:
    """Whether `text` is written as a place of the hub rather than as a path."""
    return text.lower().startswith(SCHEME)


def parse(text: str) -> Place:
    """hf://USER/NAME[@REVISION][/PATH]. ConfigError: one line."""
    found = PLACE.fullmatch(text)
    path = (found["path"] or "").strip("/") if found else ""
    if found is None or any(part in ("", ".", "..") for part in path.split("/")[: len(path)]):
        raise ConfigError(
            f"{shown(text)} is no place of the hub: write hf://USER/NAME, hf://USER/NAME@REVISION or "
            "hf://USER/NAME/FILE"
        )
    return Place(found["repo"], found["revision"], path)


def local(folder: str | Path) -> Path:
    """The folder on this machine: `folder`, or where what is on the hub was fetched to. Errors as of model_folder."""
    return model_folder(str(folder)) if is_place(str(folder)) else Path(folder)


def model_folder(text: str) -> Path:
    """The folder of the model hf://USER/NAME with all that it takes, out of the hub's cache or fetched into it.

    ConfigError where `text` is no such place or the package is missing, DataError where the hub does not have it.
    """
    place = parse(text)
    if place.path:
        raise ConfigError(f"{shown(text)} names a file: a model is the whole of hf://{place.repo}")
    folder = _snapshot(text, place, [exported.ABOUT, *exported.CHECKED, *exported.OF_TEXT])
    if not (folder / exported.ABOUT).is_file():
        raise DataError(f"{text} holds no {exported.ABOUT}, so `vqlcmd publish` did not make it: name another one")
    return folder


def checkpoint(text: str) -> Path:
    """The file or folder of a tokenizer in hf://USER/NAME[/PATH], with what tells of it beside. Errors as above."""
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
    """Put the files of an exported folder into the repository USER/NAME, made unless it is there; gives its address.

    One commit for all. ConfigError and DataError as above, and where the folder is none that `vqlcmd export` made.
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
        # What an earlier version had and this one has not would stay otherwise.
        done = api.upload_folder(
            repo_id=place.repo, folder_path=folder, commit_message="A model of vqlcmd", delete_patterns=["*"]
        )
        return str(done.commit_url)


def _snapshot(text: str, place: Place, wanted: list[str]) -> Path:
    with _errors(text) as hub:
        return Path(hub.snapshot_download(place.repo, revision=place.revision, allow_patterns=wanted))


@contextmanager
def _errors(text: str) -> Iterator[Any]:
    """The client; what it raises becomes one line."""
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
    # RuntimeError: of an upload, with the reason behind it.
    except (errors.HfHubHTTPError, errors.HTTPError, errors.HFValidationError, OSError, RuntimeError) as error:
        reason = shown(error.__cause__ or error)
        raise DataError(f"{text}: the hub's client gives up ({reason}): try again, or check HF_ENDPOINT") from None
