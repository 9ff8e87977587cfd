"""A camera on 127.0.0.1: Motion JPEG over HTTP, that drops its connections as a test asks."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer

import cv2
import numpy as np

BOUNDARY = b"frame"


@dataclass
class Camera:
    """Images (H, W, 3) uint8 RGB, sent one after the other over one connection after the other.

    ``connections``: how many images each connection gives; a negative number breaks off in the middle of the one
    after them. When there is no more connection, the camera is gone (404).
    """

    images: Sequence[np.ndarray]
    connections: list[int]
    interval: float = 0.01  # seconds between two images
    sent: int = 0
    finished: threading.Event = field(default_factory=threading.Event)  # the last connection has been served


class _Handler(BaseHTTPRequestHandler):
    cameras: dict[str, Camera]
    closing: threading.Event

    def do_GET(self) -> None:
        camera = self.cameras.get(self.path.lstrip("/"))
        if camera is None or not camera.connections:
            self.send_error(404)
            return
        count = camera.connections.pop(0)
        self.send_response(200)
        self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={BOUNDARY.decode()}")
        self.end_headers()
        try:
            for _ in range(abs(count)):
                self.wfile.write(_part(camera.images[camera.sent % len(camera.images)]))
                camera.sent += 1
                if self.closing.wait(camera.interval):
                    return
            if count < 0:
                self.wfile.write(_part(camera.images[0])[:200])
        except OSError:
            return  # the reader has gone
        finally:
            if not camera.connections:
                camera.finished.set()

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's own asks a name server for the name of this machine
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]


def _part(image: np.ndarray) -> bytes:
    done, coded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])
    assert done
    head = b"--%s\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % (BOUNDARY, coded.size)
    return head + coded.tobytes() + b"\r\n"


@contextmanager
def cameras_on_loopback(**cameras: Camera) -> Iterator[dict[str, str]]:
    """Serve the cameras while the block runs; the address of each by its name."""
    closing = threading.Event()
    handler = type("Handler", (_Handler,), {"cameras": cameras, "closing": closing})
    with _Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield {name: f"http://127.0.0.1:{server.server_port}/{name}" for name in cameras}
        finally:
            closing.set()
            server.shutdown()
            thread.join()
