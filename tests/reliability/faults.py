"""A proxy in front of an S3 server that makes a share of the requests fail, in the ways that networks and S3 do."""

from __future__ import annotations

import http.client
import random
import select
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KINDS = ("slow_down", "reset", "truncate", "hang")
Answer = tuple[int, list[tuple[str, str]], bytes]


def error_body(code: str) -> bytes:
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{code}</Message></Error>'.encode()
    )


class FaultProxy(ThreadingHTTPServer):
    """Passes requests on to the server at the port, but for those that `choose` gives a fault to.

    `choose` is told method and path with query, and names a fault: one of KINDS, "gone" (the server ends), or "" for
    none.
    """

    daemon_threads = True
    request_queue_size = 100

    def __init__(self, port: int, choose: Callable[[str, str], str]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.server_port_behind, self.choose = port, choose
        self.faults: Counter[str] = Counter()
        self.is_gone = threading.Event()
        self.completed: dict[str, Answer] = {}

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that dies or gives up is no news here."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultProxy

    def do_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = "reset" if self.server.is_gone.is_set() else self.server.choose(self.command, self.path)
        self.server.faults[fault] += 1
        if fault == "slow_down":
            self.answer(503, [("Content-Type", "application/xml")], error_body("SlowDown"))
        elif fault == "hang":
            while not self.server.is_gone.is_set() and not select.select([self.connection], [], [], 0.2)[0]:
                pass  # until the client gives up
            self.close_connection = True
        elif fault == "reset":
            if self.server.faults["reset"] % 2 and not self.server.is_gone.is_set():
                self.pass_on(body)  # the server may or may not have obeyed before the line broke
            self.reset()
        elif fault == "gone":
            self.server.is_gone.set()
            self.server.shutdown()
            self.server.server_close()
            self.reset()
        else:
            self.answer(*self.pass_on(body), is_truncated=fault == "truncate")

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_any

    def pass_on(self, body: bytes) -> Answer:
        if self.command == "POST" and self.path in self.server.completed:
            return self.server.completed[self.path]
        behind = http.client.HTTPConnection("127.0.0.1", self.server.server_port_behind, timeout=60)
        try:
            behind.request(self.command, self.path, body, dict(self.headers.items()))
            response = behind.getresponse()
            answer = response.status, response.getheaders(), response.read()
        finally:
            behind.close()
        if self.command == "POST" and "uploadId=" in self.path and response.status == 200:
            self.server.completed[self.path] = answer  # S3 answers a repeated completion alike, moto does not
        return answer

    def answer(self, status: int, headers: list[tuple[str, str]], body: bytes, is_truncated: bool = False) -> None:
        if is_truncated and (self.command == "HEAD" or not body):
            self.wfile.write(b"HTTP/1.1 20")
            self.reset()
            return
        hop = {"connection", "transfer-encoding", "date", "server", "content-length"}
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in hop:
                self.send_header(name, value)
        # the length of what a HEAD asks about, else of what follows
        length = next((value for name, value in headers if name.lower() == "content-length"), "0")
        self.send_header("Content-Length", length if self.command == "HEAD" else str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if is_truncated else body)
        self.close_connection = self.close_connection or is_truncated

    def reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@contextmanager
def fault_proxy(port: int, choose: Callable[[str, str], str]) -> Iterator[FaultProxy]:
    proxy = FaultProxy(port, choose)
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.is_gone.set()
        proxy.shutdown()
        proxy.server_close()
        thread.join()


def at_random(shares: dict[str, float], seed: int) -> Callable[[str, str], str]:
    """Each kind of fault at its share of the requests, by a seeded draw."""
    draw, lock = random.Random(seed), threading.Lock()

    def choose(method: str, path: str) -> str:
        with lock:
            number = draw.random()
        for kind, share in shares.items():
            if number < share:
                return kind
            number -= share
        return ""

    return choose
