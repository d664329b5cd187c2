"""A local server that speaks the Hub's protocol to the real client, which finds it by `HF_ENDPOINT`.

It holds repositories of models with branches, commits and pull requests, serves files whole and in
ranges (weights through a redirect to another host, as the Hub does), and takes uploads. It logs every
request with its bytes. A `Fault` makes it fail at a chosen request.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"  # of every model that is served from a folder
CHUNK_BYTES = 1 << 16
CODES = {401: "RepoNotFound", 403: "GatedRepo", 404: "EntryNotFound"}


@dataclass(frozen=True)
class Content:
    """A file of a commit: its bytes, or where they are on this disk."""

    source: bytes | Path
    is_large: bool

    @property
    def size(self) -> int:
        return len(self.source) if isinstance(self.source, bytes) else self.source.stat().st_size

    def pieces(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        stop = self.size if stop is None else stop
        if isinstance(self.source, bytes):
            yield self.source[start:stop]
            return
        with self.source.open("rb") as file:
            file.seek(start)
            while start < stop and (piece := file.read(min(CHUNK_BYTES, stop - start))):
                start += len(piece)
                yield piece

    @cached_property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        for piece in self.pieces():
            digest.update(piece)
        return digest.hexdigest()

    @cached_property
    def blob_id(self) -> str:
        digest = hashlib.sha1(f"blob {self.size}\0".encode())
        for piece in self.pieces() if not self.is_large else [self.sha256.encode()]:
            digest.update(piece)
        return digest.hexdigest()

    @property
    def lfs(self) -> dict[str, Any]:
        if not self.is_large:
            return {}
        return {"lfs": {"size": self.size, "sha256": self.sha256, "oid": self.sha256,
                        "pointerSize": 134}}  # fmt: skip


@dataclass
class Commit:
    """One state of a repository."""

    id: str
    files: dict[str, Content]
    title: str = ""
    parent: Commit | None = None


@dataclass
class Repository:
    """A model: its branches and pull requests by name, and every commit by id."""

    refs: dict[str, Commit]
    commits: dict[str, Commit] = field(default_factory=dict)
    is_private: bool = False

    def commit(self, ref: str, files: dict[str, Content], title: str) -> Commit:
        """A new commit on `ref`."""
        parent = self.refs.get(ref)
        made = hashlib.sha1(f"{len(self.commits)} {ref} {title}".encode()).hexdigest()
        commit = Commit(made, files, title, parent)
        self.commits[made] = self.refs[ref] = commit
        return commit


@dataclass
class Request:
    """One request in the log: bytes of both bodies and of the answer's headers, and the range asked for."""

    method: str
    path: str
    status: int = 0
    received: int = 0
    sent: int = 0
    head: int = 0
    span: tuple[int, int] | None = None
    authorised: bool = False


@dataclass
class Fault:
    """What goes wrong, once or `times` times, at requests whose `METHOD path` matches `pattern`.

    Attributes:
        status: answer this instead.
        drop_after: cut the connection after so many bytes of the body of the answer.
        drop_upload_after: cut it after so many bytes of the body of the request.
        loses_answer: do what is asked, and cut the connection before the answer.
        ignores_range: answer 200 and the whole file.
        etag: send this one.
        before: is called first, for example to move a branch.
    """

    pattern: str
    times: int = 1
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    drop_after: int | None = None
    drop_upload_after: int | None = None
    loses_answer: bool = False
    ignores_range: bool = False
    etag: str | None = None
    before: Callable[[], object] = lambda: None


class Hub:
    """The state of the server.

    Attributes:
        token: what private repositories want to see.
        objects: the store of large files, by sha256.
        log, asked: every request, and its `METHOD path`.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, Content] = {}
        self.log: list[Request] = []
        self.asked: list[str] = []
        self.faults: list[Fault] = []
        self.token = "hf_secret"
        self.address = ""
        self.mutex = threading.RLock()

    def add(self, name: str, folder: Path, *, is_private: bool = False) -> Repository:
        """Serve a folder as a model, with one commit on `main`."""
        first = Commit(COMMIT, contents(folder))
        self.repositories[name] = repository = Repository({"main": first}, {COMMIT: first})
        repository.is_private = is_private
        self.objects |= {c.sha256: c for c in first.files.values() if c.is_large}
        return repository

    def fault(self, line: str) -> Fault:
        """The fault that strikes a request."""
        with self.mutex:
            for each in self.faults:
                if each.times and re.search(each.pattern, line):
                    each.times -= 1
                    each.before()
                    return each
        return Fault("", 0)

    def sent(self, pattern: str) -> int:
        """Bytes sent in answer to the requests that match."""
        return sum(e.sent for e in self.log if re.search(pattern, f"{e.method} {e.path}"))


def contents(folder: Path) -> dict[str, Content]:
    """The files of a folder; weights are stored as large files."""
    return {
        path.relative_to(folder).as_posix(): Content(path, is_large(path.name))
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".bin"))


class _Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, code: str, message: str = "") -> None:
        self.status, self.code, self.message = status, code, message or code
        super().__init__(code)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        pass

    def handle_one_request(self) -> None:
        with suppress(ConnectionError):
            super().handle_one_request()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        self.entry = Request(self.command, unquote(url.path))
        self.entry.authorised = self.headers.get("Authorization") == f"Bearer {self.hub.token}"
        with self.hub.mutex:
            self.hub.log.append(self.entry)
            self.hub.asked.append(f"{self.command} {self.entry.path}")
        self.struck = self.hub.fault(f"{self.command} {self.entry.path}")
        self.body = self.received()
        try:
            if self.struck.status:
                raise _Refused(self.struck.status, CODES.get(self.struck.status, ""))
            self.route([unquote(part) for part in url.path.split("/")[1:]])
        except _Refused as refused:
            told = json.dumps({"error": refused.message}).encode()
            headers = {"X-Error-Code": refused.code} if refused.code else {}
            headers |= {"X-Error-Message": refused.message, **self.struck.headers}
            self.answer(refused.status, [told], len(told), headers)

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

    def received(self) -> bytes:
        """The body of the request; the content of an upload goes to the store."""
        most = self.struck.drop_upload_after
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while length := int(self.rfile.readline(), 16):
                body += self.rfile.read(length)
                self.rfile.readline()
            self.rfile.readline()
        else:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length if most is None else min(most, length))
        self.entry.received = len(body)
        if most is not None:
            self.cut()
        return body

    def cut(self) -> None:
        """Cut the connection, as a network does."""
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        raise ConnectionAbortedError

    def answer(
        self, status: int, body: Any = (), size: int = 0, headers: dict[str, str] | None = None
    ) -> None:
        """Send an answer; its body comes in pieces."""
        self.entry.status = status
        if self.struck.loses_answer:
            self.cut()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(size))
        self.entry.head = sum(map(len, self._headers_buffer))
        self.end_headers()
        for piece in body if self.command != "HEAD" else ():
            most = self.struck.drop_after
            if most is not None and self.entry.sent + len(piece) > most:
                self.wfile.write(piece[: most - self.entry.sent])
                self.wfile.flush()
                self.entry.sent = most
                self.cut()
            self.wfile.write(piece)
            self.entry.sent += len(piece)

    def say(self, data: Any, status: int = 200) -> None:
        """Answer with JSON."""
        raw = json.dumps(data).encode()
        self.answer(status, [raw], len(raw), {"Content-Type": "application/json"})

    def route(self, parts: list[str]) -> None:
        match parts:
            case ["api", "whoami-v2"]:
                self.say({"type": "user", "name": "someone", "auth": {}, "orgs": []})
            case ["api", "validate-yaml"]:
                self.say({"errors": [], "warnings": []})
            case ["api", "repos", "create"]:
                self.create(json.loads(self.body))
            case ["api", "models", org, name, *rest]:
                self.api(f"{org}/{name}", self.repository(f"{org}/{name}"), rest)
            case ["cdn", oid]:
                self.serve(self.hub.objects[oid], {"ETag": f'"cdn-{oid[:8]}"'})
            case [org, name, "info", "lfs", "objects", "batch"] if name.endswith(".git"):
                self.repository(f"{org}/{name.removesuffix('.git')}")
                self.batch(json.loads(self.body))
            case ["lfs", "verify"]:
                self.say({})
            case ["lfs", oid]:
                if hashlib.sha256(self.body).hexdigest() != oid:
                    raise _Refused(400, "", "content does not match")
                self.hub.objects[oid] = Content(self.body, True)
                self.answer(200)
            case [org, name, "resolve", revision, *path]:
                repository = self.repository(f"{org}/{name}")
                self.resolve(self.commit(repository, revision), "/".join(path))
            case _:
                raise _Refused(404, "")

    def repository(self, name: str) -> Repository:
        if name.startswith("gated/"):
            raise _Refused(403, "GatedRepo", "gated")
        found = self.hub.repositories.get(name)
        if found is None or (found.is_private and not self.entry.authorised):
            status = 404 if self.entry.authorised else 401
            raise _Refused(status, "RepoNotFound", "Repository Not Found")
        return found

    def commit(self, repository: Repository, revision: str) -> Commit:
        found = repository.refs.get(revision) or repository.commits.get(revision)
        if found is None:
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return found

    def create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted.get('organization') or 'someone'}/{wanted['name']}"
        if name in self.hub.repositories:
            self.say({"error": "exists", "url": f"{self.hub.address}/{name}"}, 409)
            return
        made = self.hub.repositories[name] = Repository({})
        made.is_private = bool(wanted.get("private")) or wanted.get("visibility") == "private"
        made.commit("main", {}, "initial commit")
        self.say({"url": f"{self.hub.address}/{name}", "name": name})

    def api(self, name: str, repository: Repository, rest: list[str]) -> None:
        match rest:
            case [] | ["revision", _]:
                self.about(
                    name, repository, self.commit(repository, [*rest, "main"][1 if rest else 0])
                )
            case ["tree", revision, *folder]:
                files = self.commit(repository, revision).files
                prefix = "/".join(folder)
                self.say([entry(p, c) for p, c in files.items() if p.startswith(prefix)])
            case ["paths-info", revision]:
                files = self.commit(repository, revision).files
                kind = self.headers.get("Content-Type", "")
                wanted = json.loads(self.body) if "json" in kind else parse_qs(self.body.decode())
                self.say([entry(path, files[path]) for path in wanted["paths"] if path in files])
            case ["refs"]:
                kinds = {"branches": "refs/heads/", "pullRequests": ""}
                said = {kind: [
                    {"name": n, "ref": prefix + n, "targetCommit": c.id}
                    for n, c in repository.refs.items() if n.startswith("refs/") == (not prefix)
                ] for kind, prefix in kinds.items()}  # fmt: skip
                self.say({**said, "tags": [], "converts": []})
            case ["preupload", revision]:
                files = self.commit(repository, revision).files
                self.say({"files": [
                    {"path": each["path"], "shouldIgnore": False,
                     "uploadMode": "lfs" if is_large(each["path"]) else "regular",
                     "oid": oid_of(files.get(each["path"]))}
                    for each in json.loads(self.body)["files"]
                ]})  # fmt: skip
            case ["commit", revision]:
                self.take_commit(name, repository, revision)
            case ["discussions", number, "merge"]:
                pull = repository.refs[f"refs/pr/{number}"]
                repository.commit("main", pull.files, f"merge {number}")
                self.say({"newStatus": "merged"})
            case ["discussions", _, *_]:
                self.say({})
            case _:
                raise _Refused(404, "")

    def about(self, name: str, repository: Repository, commit: Commit) -> None:
        detailed = "blobs" in self.query
        siblings = [
            {"rfilename": path,
             **({"size": c.size, "blobId": c.blob_id, **c.lfs} if detailed else {})}
            for path, c in commit.files.items()
        ]  # fmt: skip
        self.say({
            "id": name, "sha": commit.id, "siblings": siblings, "tags": [],
            "private": repository.is_private, "downloads": 0, "likes": 0,
        })  # fmt: skip

    def batch(self, wanted: dict[str, Any]) -> None:
        objects = []
        for each in wanted["objects"]:
            action = {"href": f"{self.hub.address}/lfs/{each['oid']}", "header": {}}
            verify = {"href": f"{self.hub.address}/lfs/verify", "header": {}}
            is_there = each["oid"] in self.hub.objects
            objects.append(
                each | ({} if is_there else {"actions": {"upload": action, "verify": verify}})
            )
        self.say({"transfer": "basic", "objects": objects})

    def take_commit(self, name: str, repository: Repository, revision: str) -> None:
        lines = [json.loads(line) for line in self.body.splitlines() if line]
        header = lines[0]["value"]
        with self.hub.mutex:
            base, number = self.commit(repository, revision), None
            if header.get("parentCommit", base.id) != base.id:
                raise _Refused(
                    412, "", "A commit has happened since. Please refresh and try again."
                )
            files = dict(base.files)
            for line in lines[1:]:
                self.apply(line["key"], line["value"], files)
            if "create_pr" in self.query:
                number = 1 + sum(ref.startswith("refs/pr/") for ref in repository.refs)
                revision = f"refs/pr/{number}"
                repository.refs[revision] = base
            made = repository.commit(revision, files, header["summary"])
        pull = {} if number is None else {
            "pullRequestUrl": f"{self.hub.address}/{name}/discussions/{number}"}  # fmt: skip
        self.say({"success": True, "commitOid": made.id, "hookOutput": "",
                  "commitUrl": f"{self.hub.address}/{name}/commit/{made.id}", **pull})  # fmt: skip

    def apply(self, key: str, value: dict[str, Any], files: dict[str, Content]) -> None:
        if key == "file":
            files[value["path"]] = Content(base64.b64decode(value["content"]), False)
        elif key == "lfsFile":
            if value["oid"] not in self.hub.objects:
                raise _Refused(400, "", f"lfs object {value['oid']} is missing")
            files[value["path"]] = replace(self.hub.objects[value["oid"]], is_large=True)
        elif key == "deletedFile":
            del files[value["path"]]

    def resolve(self, commit: Commit, path: str) -> None:
        content = commit.files.get(path)
        if content is None:
            raise _Refused(404, "EntryNotFound", "Entry not found")
        tag = content.sha256 if content.is_large else content.blob_id
        tag = self.struck.etag or f'"{tag}"'
        headers = {"X-Repo-Commit": commit.id, "ETag": tag}
        if not content.is_large:
            self.serve(content, headers)
            return
        large = {"X-Linked-ETag": tag, "X-Linked-Size": str(content.size)}
        other = self.hub.address.replace("127.0.0.1", "localhost")
        large["Location"] = f"{other}/cdn/{content.sha256}"
        self.answer(302, headers=headers | large)

    def serve(self, content: Content, headers: dict[str, str]) -> None:
        """A file or a range of it."""
        headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", **headers}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        size = content.size
        if asked is None or self.struck.ignores_range:
            self.answer(200, content.pieces(), size, headers)
            return
        start, stop = int(asked[1]), min(int(asked[2] or size - 1) + 1, size)
        self.entry.span = start, stop
        if start >= size:
            raise _Refused(416, "", "Range Not Satisfiable")
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        self.answer(206, content.pieces(start, stop), stop - start, headers)


def entry(path: str, content: Content) -> dict[str, Any]:
    """A file as the Hub lists it."""
    return {"type": "file", "path": path, "size": content.size, "oid": content.blob_id,
            **content.lfs}  # fmt: skip


def oid_of(content: Content | None) -> str | None:
    if content is None:
        return None
    return content.sha256 if content.is_large else content.blob_id


@contextmanager
def serving(models: dict[str, Path]) -> Iterator[Hub]:
    """Serve folders as models while the block lasts."""
    hub = Hub()
    for name, folder in models.items():
        hub.add(name, folder)
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def environment(hub: Hub, home: Path, **more: str) -> dict[str, str]:
    """The environment of a process that uses the server and a cache of its own."""
    return {
        "HF_ENDPOINT": hub.address, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": hub.token, **more,
    }  # fmt: skip


def use(hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch, *, offline: bool = False) -> None:
    """Make this process use the server and a cache of its own, as `environment` does another."""
    from huggingface_hub import constants, file_download, hf_api, utils

    template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
    for name, value in {
        "ENDPOINT": hub.address, "HUGGINGFACE_CO_URL_TEMPLATE": template, "HF_HOME": str(home),
        "HF_HUB_CACHE": str(home / "hub"), "HF_HUB_OFFLINE": offline, "HF_HUB_DISABLE_XET": True,
    }.items():  # fmt: skip
        for module in (constants, file_download, hf_api):  # before 1.0 some have names of their own
            if hasattr(module, name):
                monkeypatch.setattr(module, name, value)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    getattr(utils, "reset_sessions", getattr(utils, "close_session", None))()
