"""A local server that speaks as much of OpenAI's protocol as a chat needs."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[dict[str, Any]], "str | int"]


@contextmanager
def answering(answer: Answer) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Serve `answer`, which makes a text, or the status of a failure, of a request.

    Yields the base URL, and a list of the requests that were answered with a text, with their headers.
    """
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            made = answer(request) if self.path == "/v1/chat/completions" else 404
            body = b"{}"
            if isinstance(made, str):
                asked.append({**request, "headers": dict(self.headers)})
                message = {"role": "assistant", "content": made}
                choice = {"index": 0, "finish_reason": "stop", "message": message}
                body = json.dumps(
                    {"id": "1", "object": "chat.completion", "created": 0, "model": "m",
                     "choices": [choice]}
                ).encode()  # fmt: skip
            self.send_response(200 if isinstance(made, str) else made)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
