"""A stand-in for the Hugging Face hub on this machine: its addresses and its file layout, for the real client."""

import base64
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Hub(http.server.ThreadingHTTPServer):
    """Repositories as lists of commits, each {path: bytes}; `asked` are the requests so far."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, list[tuple[str, dict[str, bytes]]]] = {}
        self.objects: dict[str, bytes] = {}
        self.private: set[str] = set()
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def commit(self, repository: str, files: dict[str, bytes]) -> str:
        """A new commit with exactly these files; its name."""
        listing = repr(sorted((path, hashlib.sha256(content).hexdigest()) for path, content in files.items()))
        commits = self.repositories.setdefault(repository, [])
        name = hashlib.sha1(f"{len(commits)}{listing}".encode()).hexdigest()
        commits.append((name, files))
        return name

    def at(self, repository: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """The commit of that name, or the last one of `main`."""
        commits = self.repositories.get(repository, [])
        found = [commit for commit in commits if revision in ("main", commit[0])]
        return found[-1] if found else None


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/?]+))?(?:\?.*)?", self._path()):
            commit = self._commit(found[1], found[2] or "main")
            if commit:
                siblings = [{"rfilename": path, "size": len(content)} for path, content in commit[1].items()]
                self._json({"id": found[1], "modelId": found[1], "sha": commit[0], "siblings": siblings})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/?]+)(/[^?]*)?(?:\?.*)?", self._path()):
            commit = self._commit(found[1], found[2])
            if commit:
                self._json(
                    [
                        {"type": "file", "path": path, "size": len(content), "oid": _blob(content)}
                        for path, content in commit[1].items()
                    ]
                )
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+?)(?:\?.*)?", self._path()):
            self._file(found[1], found[2], found[3])
        else:
            self._answer(404, b"")

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self._path() == "/api/repos/create":
            said = json.loads(body)
            name = f"{said['organization']}/{said['name']}" if said.get("organization") else said["name"]
            self.server.repositories.setdefault(name, [])
            if not self.server.repositories[name]:
                self.server.commit(name, {".gitattributes": b""})
            if said.get("private") or said.get("visibility") == "private":
                self.server.private.add(name)
            self._json({"url": f"{self.server.url}/{name}", "name": name, "id": name})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main(?:\?.*)?", self._path()):
            kinds = [
                {
                    "path": each["path"],
                    "uploadMode": "lfs" if each["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for each in json.loads(body)["files"]
            ]
            self._json({"files": kinds})
        elif re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", self._path()):
            wanted = json.loads(body)["objects"]
            upload = {each["oid"]: {"upload": {"href": f"{self.server.url}/lfs/{each['oid']}"}} for each in wanted}
            objects = [{**each, "actions": upload[each["oid"]]} for each in wanted]
            self._json({"transfer": "basic", "objects": objects})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main(?:\?.*)?", self._path()):
            self._json(self._committed(found[1], [json.loads(line) for line in body.splitlines()]))
        elif self._path() == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        else:
            self._answer(404, b"")

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        name = self._path().rpartition("/")[2]
        assert hashlib.sha256(body).hexdigest() == name
        self.server.objects[name] = body
        self._answer(200, b"")

    def _committed(self, repository: str, operations: list[dict[str, Any]]) -> dict[str, Any]:
        files = dict(self.server.repositories[repository][-1][1])
        for each in operations:
            value = each["value"]
            if each["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif each["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
            elif each["key"] == "deletedFile":
                del files[value["path"]]
        name = self.server.commit(repository, files)
        return {"commitOid": name, "commitUrl": f"{self.server.url}/{repository}/commit/{name}", "success": True}

    def _commit(self, repository: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        found = self.server.at(repository, revision)
        if found is None or repository in self.server.private:
            known = repository in self.server.repositories and repository not in self.server.private
            self._answer(404, b"", {"X-Error-Code": "RevisionNotFound" if known else "RepoNotFound"})
            return None
        return found

    def _file(self, repository: str, revision: str, path: str) -> None:
        commit = self._commit(repository, revision)
        if commit is None:
            return
        if path not in commit[1]:
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit[0]})
            return
        content = commit[1][path]
        headers = {"ETag": f'"{_blob(content)}"', "X-Repo-Commit": commit[0], "Accept-Ranges": "bytes"}
        self._answer(200, content, headers)

    def _path(self) -> str:
        return self.path

    def _json(self, value: Any) -> None:
        self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the name it has)
        pass


def _blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def running() -> Iterator[Hub]:
    """A hub that answers while the block runs."""
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
