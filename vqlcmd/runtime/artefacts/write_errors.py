"""What a disk refuses, in one line: the file, the reason, and what to do. The run's saved state stays as it was."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vqlcmd.runtime.errors import shown

REASONS = {
    errno.ENOSPC: ("the disk is full", "make room on it"),
    errno.EDQUOT: ("your share of the disk is used up", "make room on it"),
    errno.EFBIG: ("the file is larger than this disk or shell allows", "raise the limit, `ulimit -f` shows a shell's"),
    errno.EACCES: ("no permission", "change its owner or mode, or that of its folder"),
    errno.EPERM: ("no permission", "change its owner or mode, or that of its folder"),
    errno.EROFS: ("the disk can only be read", "choose another place"),
    errno.ENOTDIR: ("a file is where a folder belongs", "move it away"),
    errno.EEXIST: ("a file is where a folder belongs", "move it away"),
    errno.EISDIR: ("a folder is where a file belongs", "move it away"),
    errno.ENOTEMPTY: ("a folder is where a file belongs", "move it away"),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter one"),
    errno.EMFILE: ("too many files are open", "raise the limit, `ulimit -n` shows it"),
    errno.EIO: ("the disk reports an error", "look at its health, or choose another place"),
}
OF_THE_PROCESS = {
    errno.EMFILE: REASONS[errno.EMFILE],
    errno.ENFILE: ("too many files are open on this machine", "end other programs"),
    errno.EAGAIN: (
        "no more processes may be started",
        "set VQLCMD_WORKERS=0, or raise the limit, `ulimit -u` shows it",
    ),
}
"""What the system refuses to a process, whatever the file. For memory, `launcher.of_memory` knows what to turn."""
NOT_WRITTEN = re.compile(r"inline_container|PytorchStreamWriter|os error (\d+)|requested and \d+ written")
"""What torch, safetensors and numpy say where a write fails: no OSError, or one without a number."""
LONGEST_PATH = 300
"""Of what is printed of it; what parameters name may be a megabyte."""
LEAST = 2**20
"""Bytes free, below which a write that failed without a reason failed for lack of room."""


@contextmanager
def writing(path: Path, side: Path | None = None) -> Iterator[None]:
    """Errors of writing that arise inside name `path`, not its side file, and have a number, whoever reports them."""
    try:
        yield
    except Exception as error:
        found = NOT_WRITTEN.search(str(error))
        if isinstance(error, OSError) and error.errno is not None:
            if error.filename is None or error.filename == str(side):
                error.filename = str(path)
            raise
        if found is None:
            raise
        number = int(found[1]) if found[1] else _likely(path)
        raise OSError(number, os.strerror(number), str(path)) from error


def one_line(error: OSError) -> str | None:
    """What a user reads of an error of the file system; None where it is none of a file."""
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list):
        source, target, text = error.args[0][0]
        return f"{target} cannot be copied from {source}: {text}; then run the same command again"
    if error.filename is None and error.errno in OF_THE_PROCESS:
        reason, remedy = OF_THE_PROCESS[error.errno]
        return f"{reason}; {remedy}, then run the same command again"
    if error.errno is None or error.filename is None:
        return None
    reason, remedy = REASONS.get(error.errno, (error.strerror or "it cannot be used", "see to it"))
    return f"{_shown(error)}: {reason}; {remedy}, then run the same command again"


def _shown(error: OSError) -> str:
    if isinstance(error.filename, int):
        return "an open file"
    return shown(os.fsdecode(error.filename2 or error.filename), LONGEST_PATH)


def _likely(path: Path) -> int:
    """torch does not say why. EFBIG where the shell limits sizes, ENOSPC where nothing is free, else EIO."""
    import resource

    if resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY:
        return errno.EFBIG
    try:
        return errno.ENOSPC if shutil.disk_usage(path.parent).free < LEAST else errno.EIO
    except OSError:
        return errno.EIO
