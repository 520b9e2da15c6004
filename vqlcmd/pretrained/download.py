"""Downloads into a cache folder: an interrupted transfer is resumed, the file is checked, and it is whole or absent.

Places on the hub (hf://) are left to the hub's own client and cache.
"""

import fcntl
import hashlib
import http.client
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import IO

from vqlcmd.pretrained import hub
from vqlcmd.runtime.errors import ConfigError, DataError, shown
from vqlcmd.runtime.files import sha256
from vqlcmd.runtime.progress import Progress

SECONDS = 30.0
PIECE = 2**20
NAME_LENGTH = 100
"""The longest file name in the cache; a longer one is cut at its start, so that its extension stays."""
VERSION = re.compile(r"[\x20-\x7e]{1,200}")
"""A server's identifier for a version of a file, as it can be sent back in a request."""
LENGTH = re.compile(r"[0-9]{1,15}")


def is_url(place: str) -> bool:
    """Whether `place` is written as a URL rather than as a path."""
    return re.match(r"[a-z][a-z0-9+.-]*://", place, re.IGNORECASE) is not None


def fetch(url: str, cache: Path, digest: str | None = None) -> Path:
    """The path of the file at an http, https, hf or file URL; downloaded into `cache` unless it is there already.

    An interrupted transfer leaves a side file, which the next call resumes. Raises DataError if the server does not
    give the file or gives one with another SHA-256 than `digest`, or if the cache cannot be written, and ConfigError
    for other URLs. A place on the hub may be a folder, and comparing its digest is left to the caller.
    """
    if hub.is_place(url):
        return hub.checkpoint(url)
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError as error:
        raise ConfigError(f"vqgan.checkpoint is {url}, which is no URL ({error}): correct it, or name a path") from None
    if parts.scheme.lower() == "file":
        return Path(urllib.request.url2pathname(parts.path))
    if parts.scheme.lower() not in ("http", "https"):
        raise ConfigError(f"vqgan.checkpoint is {url}: only http, https, hf and file URLs can be fetched; name a path")
    name = (
        re.sub(r"[^A-Za-z0-9_.-]", "_", urllib.parse.unquote(parts.path.rpartition("/")[2])).lstrip(".")[-NAME_LENGTH:]
        or "checkpoint"
    )
    target = cache / hashlib.sha256(url.encode()).hexdigest()[:16] / name
    try:
        return _cached(url, target, digest)
    except OSError as error:  # A full disk, no permission, a folder where a file belongs, a file where a folder does.
        place = error.filename or target
        reason = shown(error.strerror or error)
        raise DataError(f"{place} cannot be used ({reason}): clear it, or set VQLCMD_CACHE to another folder") from None


def _cached(url: str, target: Path, digest: str | None) -> Path:
    if target.is_file() and digest in (None, sha256(target)):
        return target
    if target.is_dir():
        raise DataError(f"{target} is a folder, where the file of {url} belongs: delete it")
    target.parent.mkdir(parents=True, exist_ok=True)
    part, tag = (target.with_name(f"{target.name}.{ending}") for ending in ("part", "tag"))
    with part.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"{part} is being written by another process: wait for it or stop it") from None
        if not part.exists() or not os.path.samestat(os.fstat(file.fileno()), part.stat()):
            # The other process finished between opening and locking: the open file is its result.
            raise DataError(f"{target} was finished by another process just now: the same command takes it")
        _transfer(url, file, tag, checked=digest is not None)
        file.flush()
        os.fsync(file.fileno())
        found = sha256(part)
        if digest not in (None, found):
            part.unlink()
            tag.unlink(missing_ok=True)
            raise DataError(f"{url} has SHA-256 {found}, but vqgan.sha256 is {digest}: correct the one that is wrong")
        part.replace(target)
        tag.unlink(missing_ok=True)
    return target


def _transfer(url: str, file: IO[bytes], tag: Path, *, checked: bool) -> None:
    """Appends the missing bytes to `file`, open for appending. `tag` stores the server's identifier of this version."""
    version = _as_version(tag.read_text(encoding="ascii", errors="replace") if tag.is_file() else "")
    if not (version or checked):
        file.truncate(0)  # Nothing would tell whether the rest belongs to the same version.
    start = file.seek(0, os.SEEK_END)
    headers = {"User-Agent": "vqlcmd", "Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-"} | ({"If-Range": version} if version else {})
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=SECONDS)
    except urllib.error.HTTPError as error:
        with error:
            if error.code != 416 or not start:
                answer = shown(f"{error.code} {error.reason}")
                raise DataError(f"{url}: the server answers {answer}; check vqgan.checkpoint") from None
            if error.headers.get("Content-Range") == f"bytes */{start}":
                return
        file.truncate(0)
        return _transfer(url, file, tag, checked=checked)
    except (OSError, http.client.HTTPException) as error:
        raise DataError(f"{url} cannot be reached ({_reason(error)}): try again, or download it by hand") from None
    except ValueError as error:  # For URLs that no request can carry, such as paths with letters beyond ASCII.
        raise ConfigError(f"vqgan.checkpoint is {url}, which is no URL ({_reason(error)}): percent-encode it") from None
    with response:
        length = _length(url, response)
        if response.status != 206 or not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            file.truncate(0)
            start = 0
        tag.write_text(_version(response.headers), encoding="ascii")
        _receive(url, response, file, start, None if length is None else start + length)


def _length(url: str, response: http.client.HTTPResponse) -> int | None:
    """The number of bytes of the response, None if it is not given. Raises DataError for anything but one number."""
    said = response.headers.get_all("Content-Length") or []
    if said and not LENGTH.fullmatch(" ".join(said).strip(" \t")):
        raise DataError(f"{url}: the server gives a length of {shown(', '.join(said), 40)!r}; download it by hand")
    return int(said[0]) if said else None


def _receive(url: str, response: IO[bytes], file: IO[bytes], done: int, total: int | None) -> None:
    reason = "it ended early"
    with Progress(
        f"download of {file.name.rpartition('/')[2].removesuffix('.part')}, MB", (total or 0) // 10**6
    ) as bar:
        while True:
            try:
                piece = response.read(PIECE)
            except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: an invalid size of a chunk.
                reason, total = _reason(error), total or done + 1
                break
            if not piece:
                break
            file.write(piece)
            done += len(piece)
            bar.update(done // 10**6)
        if total is not None and done < total:
            file.flush()
            raise DataError(f"{url} broke off at byte {done} of {total} ({reason}): the same command goes on")


def _version(headers: http.client.HTTPMessage) -> str:
    etag = headers.get("ETag", "")
    return _as_version(etag if etag and not etag.startswith("W/") else headers.get("Last-Modified", ""))


def _as_version(text: str) -> str:
    return text if VERSION.fullmatch(text) else ""


def _reason(error: Exception) -> str:
    return shown(getattr(error, "reason", None) or error or type(error).__name__, 100)
