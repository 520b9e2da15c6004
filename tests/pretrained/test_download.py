"""Files from a server of this machine: resumed, checked, whole or absent, and fetched once."""

import fcntl
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import prepare, run_stages
from tests.tokenizers import TINY, seeded
from vqlcmd.pretrained import download
from vqlcmd.pretrained.download import fetch
from vqlcmd.runtime.errors import ConfigError, DataError
from vqlcmd.runtime.files import sha256
from vqlcmd.tokenizer import vqgan

BYTES = bytes(range(251)) * 400
DIGEST = hashlib.sha256(BYTES).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves `content` under any name; notes the ranges asked for."""

    content = BYTES
    tag: str | None = '"one"'
    ranges = True
    breaks_after: int | None = None
    """Bytes of a body after which the connection ends."""
    says_length = True
    rewinds = False
    """Answers with a range from the beginning, whatever was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/models/last.ckpt?download=1"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers.get("Range")
        assert isinstance(server, Server)
        server.asked.append(wanted)
        if "missing" in self.path:
            self.send_error(404)
            return
        start = 0
        if wanted and server.ranges and self.headers.get("If-Range") in (None, server.tag):
            start = 0 if server.rewinds else int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(server.content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(server.content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        else:
            self.send_response(200)
        if server.tag:
            self.send_header("ETag", server.tag)
        body = server.content[start:]
        if server.says_length:
            self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        self.wfile.write(body[: server.breaks_after])

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the name it has)
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def broken(server: Server, cache: Path, after: int, **options: Any) -> str:
    server.breaks_after = after
    with pytest.raises(DataError) as caught:
        fetch(server.url, cache, **options)
    server.breaks_after = None
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_is_fetched_once_and_lies_under_its_name(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = fetch(server.url, tmp_path, DIGEST)
    assert path.read_bytes() == BYTES
    assert files(tmp_path) == ["last.ckpt"]
    assert "download of last.ckpt" in capsys.readouterr().out
    assert fetch(server.url, tmp_path, DIGEST) == fetch(server.url, tmp_path) == path
    assert server.asked == [None]


def test_a_transfer_that_broke_off_goes_on_where_it_did(server: Server, tmp_path: Path) -> None:
    assert f"broke off at byte 60000 of {len(BYTES)}" in broken(server, tmp_path, 60_000)
    assert files(tmp_path) == ["last.ckpt.part", "last.ckpt.tag"], "nothing under the final name"
    broken(server, tmp_path, 30_000)
    assert fetch(server.url, tmp_path, DIGEST).read_bytes() == BYTES
    assert server.asked == [None, "bytes=60000-", "bytes=90000-"]
    assert files(tmp_path) == ["last.ckpt"]


def test_a_transfer_begins_anew_where_the_file_has_changed_or_the_server_cannot_go_on(
    server: Server, tmp_path: Path
) -> None:
    broken(server, tmp_path, 60_000)
    server.content, server.tag = BYTES[::-1], '"two"'
    assert fetch(server.url, tmp_path).read_bytes() == BYTES[::-1]
    for number, change in enumerate(({"ranges": False}, {"tag": None}, {"tag": 'W/"weak"'})):
        for name, value in {"ranges": True, "tag": '"one"', **change}.items():
            setattr(server, name, value)
        cache = tmp_path / str(number)
        broken(server, cache, 60_000)
        assert fetch(server.url, cache).read_bytes() == BYTES[::-1]
        assert server.asked[-1] == ("bytes=60000-" if "ranges" in change else None), "without a mark nothing is resumed"


def test_a_range_other_than_the_one_asked_for_is_not_taken_for_it(server: Server, tmp_path: Path) -> None:
    broken(server, tmp_path, 60_000)
    server.rewinds = True
    assert fetch(server.url, tmp_path).read_bytes() == BYTES


def test_a_digest_is_enough_to_resume(server: Server, tmp_path: Path) -> None:
    server.tag = None
    broken(server, tmp_path, 60_000, digest=DIGEST)
    assert fetch(server.url, tmp_path, DIGEST).read_bytes() == BYTES
    assert server.asked == [None, "bytes=60000-"]


def test_a_transfer_that_ended_just_before_the_check_is_not_repeated(server: Server, tmp_path: Path) -> None:
    broken(server, tmp_path, 60_000)
    (part,) = tmp_path.rglob("*.part")
    part.write_bytes(BYTES)
    assert fetch(server.url, tmp_path, DIGEST).read_bytes() == BYTES
    assert server.asked[1:] == [f"bytes={len(BYTES)}-"]
    (tmp_path / part.relative_to(tmp_path).parent / "last.ckpt").unlink()
    part.write_bytes(BYTES + b"more")
    part.with_suffix(".tag").write_text('"one"')
    assert fetch(server.url, tmp_path, DIGEST).read_bytes() == BYTES


def test_a_wrong_digest_leaves_nothing_behind(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"has SHA-256 {DIGEST}, but vqgan.sha256 is {'0' * 64}"):
        fetch(server.url, tmp_path, "0" * 64)
    assert files(tmp_path) == []
    assert fetch(server.url, tmp_path, DIGEST).read_bytes() == BYTES
    server.content = BYTES[::-1]
    again = fetch(server.url, tmp_path, hashlib.sha256(BYTES[::-1]).hexdigest())
    assert again.read_bytes() == BYTES[::-1], "another digest, another file"


def test_a_length_that_is_not_said_is_no_obstacle(server: Server, tmp_path: Path) -> None:
    server.says_length = False
    assert fetch(server.url, tmp_path, DIGEST).read_bytes() == BYTES


def test_what_the_server_refuses_is_one_line(server: Server, tmp_path: Path) -> None:
    address = server.url.partition("/models")[0]
    with pytest.raises(DataError, match="the server answers 404 Not Found; check"):
        fetch(f"{address}/missing", tmp_path)
    with pytest.raises(DataError, match=r"cannot be reached .*refused"):
        fetch("http://127.0.0.1:9/a.ckpt", tmp_path)
    with pytest.raises(ConfigError, match="only http, https, hf and file URLs"):
        fetch("ftp://127.0.0.1/a.ckpt", tmp_path)


def test_two_processes_do_not_write_one_file(server: Server, tmp_path: Path) -> None:
    broken(server, tmp_path, 60_000)
    (part,) = tmp_path.rglob("*.part")
    with part.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="is being written by another process"):
            fetch(server.url, tmp_path)
    assert fetch(server.url, tmp_path).read_bytes() == BYTES


def test_names_from_urls_stay_inside_of_the_cache(server: Server, tmp_path: Path) -> None:
    address = server.url.partition("/models")[0]
    for name in ("/a/..%2f..%2fevil", "/..", "/", "/%2e%2e"):
        path = fetch(f"{address}{name}", tmp_path / "cache")
        assert path.resolve().is_relative_to(tmp_path / "cache")
        assert path.parent.parent == tmp_path / "cache"


def test_paths_and_urls_are_told_apart(tmp_path: Path) -> None:
    place = tmp_path / "a b.ckpt"
    assert [download.is_url(text) for text in ("HTTPS://x/y", place.as_uri(), str(place), "c:/x", "a.ckpt")] == [
        *(True, True),
        *(False, False, False),
    ]
    assert fetch(place.as_uri(), tmp_path / "cache") == place


def test_the_stage_takes_a_url_and_keeps_its_file_in_the_cache(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vqgan.save(seeded(TINY), tmp_path / "own.safetensors", {})
    server.content = (tmp_path / "own.safetensors").read_bytes()
    monkeypatch.setenv("VQLCMD_CACHE", str(tmp_path / "cache"))
    changes = {"checkpoint": server.url, "sha256": sha256(tmp_path / "own.safetensors")}
    run_stages(prepare(tmp_path / "run", {"vqgan": changes}), "vqgan")
    assert vqgan.load(tmp_path / "run" / "data" / "vqgan.safetensors").architecture == TINY
    assert files(tmp_path / "cache") == ["last.ckpt"]


@pytest.mark.parametrize(
    "url", ["http://[x/y", "http://127.0.0.1:9/ä.ckpt", "http://a..b/c", f"http://{'a' * 70}.de/c"]
)
def test_what_no_request_can_carry_is_one_line(url: str, tmp_path: Path) -> None:
    """Each was a traceback of Python's own."""
    with pytest.raises(ConfigError, match="which is no URL") as caught:
        fetch(url, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_name_of_any_length_finds_its_place(server: Server, tmp_path: Path) -> None:
    """A file system takes some 255 letters."""
    address = server.url.partition("/models")[0]
    for letter in ("a", "%E7%8C%AB"):
        found = fetch(f"{address}/{letter * 400}.safetensors", tmp_path)
        assert found.read_bytes() == BYTES
        assert found.suffix == ".safetensors"


def test_a_file_that_is_finished_between_opening_and_locking_stays_whole(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What had been opened as the unfinished file was emptied as such, though it had its place by then."""
    broken(server, tmp_path, 60_000)
    (part,) = tmp_path.rglob("*.part")
    target = part.with_suffix("")

    def finished(file: Any, how: int) -> None:
        part.write_bytes(BYTES)
        part.replace(target)
        part.with_suffix(".tag").unlink()

    monkeypatch.setattr(fcntl, "flock", finished)
    with pytest.raises(DataError, match="finished by another process just now"):
        fetch(server.url, tmp_path)
    monkeypatch.undo()
    assert fetch(server.url, tmp_path).read_bytes() == BYTES
    assert len(server.asked) == 1
