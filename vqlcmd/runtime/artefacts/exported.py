"""A folder made by `vqlcmd export`: vqlcmd.json says what is in it, with a digest of each file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vqlcmd.runtime.artefacts.json_file import read_json
from vqlcmd.runtime.errors import DataError, shown
from vqlcmd.runtime.files import sha256, write_json

ABOUT = "vqlcmd.json"
MODEL = "model/model.safetensors"
TOKENIZER = "vqgan.safetensors"
VOCABULARY = "vocabulary.json"
CHECKED = (MODEL, TOKENIZER)
"""The files that a model of images is loaded from."""
OF_TEXT = (MODEL, VOCABULARY)
"""The files that a model of text is loaded from."""
FORMAT = 1


def describe(folder: Path, values: Mapping[str, Any]) -> None:
    """Writes vqlcmd.json: `values`, and the SHA-256 of every file in the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ABOUT)
    digests = {path.relative_to(folder).as_posix(): sha256(path) for path in files}
    write_json(folder / ABOUT, {"format": FORMAT, "digests": digests, **values})


def check(folder: Path, names: Sequence[str] = CHECKED) -> None:
    """Raises DataError if one of the files `names` is missing or has another digest than in vqlcmd.json.

    Does nothing if there is no vqlcmd.json. This guards against damage and mixed-up files. It does not guard against
    other people: whoever can write the files can write their digests, and only the name of a commit, as in
    hf://USER/NAME@COMMIT, does.
    """
    path = folder / ABOUT
    if not path.is_file():
        return
    about = read_json(path, "copy it again")
    listed = about.get("digests") if isinstance(about, dict) else None
    if not isinstance(listed, dict):
        raise DataError(f"{path} lists no digests: copy it again")
    if about.get("format") != FORMAT:
        raise DataError(
            f"{path} is of format {shown(about.get('format'), 20)}, and this version reads {FORMAT}: "
            "install the version of vqlcmd that it names"
        )
    for name in names:
        if not (folder / name).is_file():
            raise DataError(f"{folder / name} is missing: copy it again")
        if listed.get(name) != sha256(folder / name):
            raise DataError(f"{folder / name} is not the file whose digest is in {path}: copy both again")
