"""A local server that speaks as much of the Hub's protocol as a download needs.

`/api/models/ID[/revision/REV]` describes a model, `/api/models/ID/tree/REV` lists it, and
`/ID/resolve/REV/FILE` serves it, with the headers that pin a file to a commit.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serving(models: dict[str, Path]) -> Iterator[tuple[str, list[str]]]:
    """Serve folders as models; yields the address, and a list of `METHOD path` as they are asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def answer(self, code: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", headers.get("size", str(len(body))))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            asked.append(f"{self.command} {path}")
            if path.startswith("/api/models/gated/"):
                self.answer(403, b"{}", X_Error_Code="GatedRepo", X_Error_Message="gated")
                return
            match = re.fullmatch(
                r"/(?:api/models/)?([^/]+/[^/]+)(?:/(\w+)/([^/]+))?(?:/(.*))?", path
            )
            folder = models.get(match[1]) if match else None
            if match is None or folder is None:
                self.answer(404, b"{}", X_Error_Code="RepoNotFound", X_Error_Message="not found")
                return
            _, verb, revision, file = match.groups()
            if revision not in (None, "main", COMMIT):
                self.answer(404, b"{}", X_Error_Code="RevisionNotFound", X_Error_Message="none")
            elif verb == "resolve":
                self.serve_file(folder / file)
            elif verb == "tree":
                self.answer(200, json.dumps(tree(folder)).encode(), Content_Type="application/json")
            else:
                siblings = [{"rfilename": entry["path"]} for entry in tree(folder)]
                about = {"id": match[1], "sha": COMMIT, "siblings": siblings, "tags": [],
                         "private": False, "downloads": 0, "likes": 0}  # fmt: skip
                self.answer(200, json.dumps(about).encode(), Content_Type="application/json")

        do_HEAD = do_GET  # noqa: N815

        def serve_file(self, path: Path) -> None:
            if not path.is_file():
                self.answer(404, b"", X_Error_Code="EntryNotFound")
                return
            body = path.read_bytes()
            tag = f'"{hashlib.sha1(body).hexdigest()}"'
            self.answer(
                200, body, ETag=tag, X_Repo_Commit=COMMIT, Content_Type="application/octet-stream"
            )

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def tree(folder: Path) -> list[dict[str, object]]:
    """The files of a model as the Hub lists them."""
    return [
        {
            "type": "file",
            "path": path.relative_to(folder).as_posix(),
            "size": path.stat().st_size,
            "oid": hashlib.sha1(path.read_bytes()).hexdigest(),
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
