"""A web server on 127.0.0.1 that behaves as well or as badly as a test asks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer


@dataclass
class Served:
    """One file and how it is served.

    ``requests`` and ``conditions`` collect Range and If-Range of every request, '' for none.
    """

    content: bytes
    ranges: bool = True
    shift: int = 0  # bytes by which a range begins too late
    tag: str = '"v1"'  # ETag
    cuts: list[int] = field(default_factory=list)  # bytes after which the n-th answer breaks off
    statuses: list[int] = field(default_factory=list)  # the first answers, instead of the file
    location: str = ""  # redirect there
    length: bool = True  # state Content-Length
    content_type: str = "application/octet-stream"
    requests: list[str] = field(default_factory=list)
    conditions: list[str] = field(default_factory=list)

    def changed_to(self, content: bytes, tag: str) -> None:
        self.content, self.tag = content, tag


@dataclass
class Server:
    address: str
    files: dict[str, Served]

    def url(self, name: str) -> str:
        return f"{self.address}/{name}"


class _Handler(BaseHTTPRequestHandler):
    disable_nagle_algorithm = True  # else a body waits for the acknowledgement of its header
    files: dict[str, Served]

    def do_GET(self) -> None:
        served = self.files.get(self.path.lstrip("/"))
        if served is None:
            self.send_error(404)
            return
        wanted = self.headers.get("Range", "")
        served.requests.append(wanted)
        served.conditions.append(self.headers.get("If-Range", ""))
        if served.statuses:
            self.send_error(served.statuses.pop(0))
            return
        if served.location:
            self.send_response(302)
            self.send_header("Location", served.location)
            self.end_headers()
            return
        start = 0
        if wanted and served.ranges and self.headers.get("If-Range", served.tag) == served.tag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) + served.shift
            if start >= len(served.content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(served.content) - 1}/{len(served.content)}")
        else:
            self.send_response(200)
        body = served.content[start:]
        self.send_header("Content-Type", served.content_type)
        if served.tag:
            self.send_header("ETag", served.tag)
        if served.length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: served.cuts.pop(0)] if served.cuts else body)

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's own asks a name server for the name of this machine
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]


@contextmanager
def loopback_server(files: dict[str, Served]) -> Iterator[Server]:
    """Serve ``files`` by name while the block runs."""
    handler = type("Handler", (_Handler,), {"files": files})
    with _Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield Server(f"http://127.0.0.1:{server.server_port}", files)
        finally:
            server.shutdown()
            thread.join()


def closed_port_address() -> str:
    """Address on this machine where nobody listens: the server that had the port is gone."""
    with loopback_server({}) as server:
        return server.address
