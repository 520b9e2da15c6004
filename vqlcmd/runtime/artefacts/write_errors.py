"""Errors of writing to disk, in one line: the file, the reason, and what to do.

The run's saved state stays as it was.
"""

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
"""Limits of the process, whatever the file. For lack of memory, `launcher.of_memory` knows what to change."""
NOT_WRITTEN = re.compile(r"inline_container|PytorchStreamWriter|os error (\d+)|requested and \d+ written")
"""What torch, safetensors and numpy say if a write fails: in no OSError, or in one without a number."""
LONGEST_PATH = 300
"""The most characters of a path that are printed; parameters may name one of a megabyte."""
LEAST = 2**20
"""Free bytes below which a write that failed without a reason is taken to have failed for lack of room."""


@contextmanager
def writing(path: Path, side: Path | None = None) -> Iterator[None]:
    """Inside, errors of writing name `path`, not its side file, and have a number, whichever library reports them."""
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
    """What a user reads about an error of the file system; None if the error is about no file."""
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
    """The likely error number, since torch gives none.

    EFBIG if the shell limits the size of files, ENOSPC if the disk is full, else EIO.
    """
    import resource

    if resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY:
        return errno.EFBIG
    try:
        return errno.ENOSPC if shutil.disk_usage(path.parent).free < LEAST else errno.EIO
    except OSError:
        return errno.EIO
