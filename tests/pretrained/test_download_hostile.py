"""What a server may answer and what may lie in the cache: the file, or one line."""

import hashlib
import resource
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from vqlcmd.pretrained.download import fetch
from vqlcmd.runtime.errors import DataError

BODY = b"weights!"


class Raw:
    """Gives the same bytes as an answer to every request."""

    def __init__(self) -> None:
        self.answer = b""
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/last.ckpt"
        threading.Thread(target=self._serve, daemon=True).start()

    def says(self, *headers: str, body: bytes = BODY, status: str = "200 OK") -> None:
        lines = [f"HTTP/1.1 {status}", *headers, "Connection: close", "", ""]
        self.answer = "\r\n".join(lines).encode("latin-1") + body

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                connection.sendall(self.answer)


@pytest.fixture
def raw() -> Iterator[Raw]:
    server = Raw()
    yield server
    server.socket.close()


def line(raw: Raw, cache: Path, digest: str | None = None) -> str:
    with pytest.raises(DataError) as caught:
        fetch(raw.url, cache, digest)
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) < 500
    return text


@pytest.mark.parametrize("length", ["abc", "1e3", "5, 5", "9" * 5000, "²", "-1", "", "8\r\nContent-Length: 9"])
def test_a_length_that_is_no_number_is_one_line(raw: Raw, tmp_path: Path, length: str) -> None:
    """`int` was asked first: a traceback, or for some of these another number."""
    raw.says(f"Content-Length: {length}")
    assert "the server gives a length of" in line(raw, tmp_path)
    raw.says("Content-Length: 8")
    assert fetch(raw.url, tmp_path).read_bytes() == BODY


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (["Transfer-Encoding: chunked"], b"zz\r\nweights!\r\n"),
        (["Transfer-Encoding: chunked"], b"-5\r\nweights!\r\n"),
        (["Transfer-Encoding: chunked"], b"8\r\nweig"),
        (["Content-Length: 9"], BODY),
        (["Content-Length: 8", "ETag: \x80\xff"], b"wei"),
    ],
)
def test_a_body_that_is_cut_or_no_body_is_one_line(raw: Raw, tmp_path: Path, headers: list[str], body: bytes) -> None:
    raw.says(*headers, body=body)
    assert "broke off" in line(raw, tmp_path)
    raw.says("Content-Length: 8")
    assert fetch(raw.url, tmp_path).read_bytes() == BODY


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("500 \x1b[2J", "the server answers 500"),
        (f"404 {'x' * 60_000}", "the server answers 404"),
        ("304 Not Modified", "the server answers 304"),
        ("abc", "cannot be reached"),
    ],
    ids=range(4),
)
def test_an_answer_without_a_file_is_one_line(raw: Raw, tmp_path: Path, status: str, words: str) -> None:
    raw.says("Content-Length: 8", status=status)
    assert words in line(raw, tmp_path)


def place(url: str, cache: Path, ending: str) -> Path:
    return cache / hashlib.sha256(url.encode()).hexdigest()[:16] / f"last.ckpt{ending}"


@pytest.mark.parametrize("ending", ["", ".part", ".tag"])
def test_a_folder_where_a_file_belongs_is_named(raw: Raw, tmp_path: Path, ending: str) -> None:
    raw.says("Content-Length: 8")
    folder = place(raw.url, tmp_path, ending)
    folder.mkdir(parents=True)
    assert str(folder) in line(raw, tmp_path)
    folder.rmdir()
    assert fetch(raw.url, tmp_path).read_bytes() == BODY


def test_a_cache_that_is_a_file_is_named(raw: Raw, tmp_path: Path) -> None:
    raw.says("Content-Length: 8")
    (tmp_path / "cache").write_text("")
    text = line(raw, tmp_path / "cache")
    assert str(tmp_path / "cache") in text
    assert "set VQLCMD_CACHE" in text


def test_a_mark_that_is_no_text_is_as_none(raw: Raw, tmp_path: Path) -> None:
    """It is sent back to the server, who would have got a line break and more out of it."""
    raw.says("Content-Length: 8")
    tag = place(raw.url, tmp_path, ".tag")
    tag.parent.mkdir(parents=True)
    for content in (bytes(range(256)), b'"a"\r\nX-Evil: 1', b"\xff" * 10**6):
        tag.write_bytes(content)
        place(raw.url, tmp_path, ".part").write_bytes(b"wei")
        assert fetch(raw.url, tmp_path, None).read_bytes() == BODY
        place(raw.url, tmp_path, "").unlink()


def test_a_disk_that_takes_no_more_is_one_line(raw: Raw, tmp_path: Path) -> None:
    raw.says("Content-Length: 8")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4, before[1]))
    try:
        assert "cannot be used (File too large): clear it" in line(raw, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert fetch(raw.url, tmp_path).read_bytes() == BODY
