"""An S3 server for tests: moto's, on a free port, which notes every request and tells hooks of it."""

from __future__ import annotations

import io
import logging
import shutil
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

KEYS = {"AWS_ACCESS_KEY_ID": "AKIATESTS", "AWS_SECRET_ACCESS_KEY": "a-secret"}
STATUS = {
    "AccessDenied": 403,
    "InvalidAccessKeyId": 403,
    "SignatureDoesNotMatch": 403,
    "ExpiredToken": 400,
    "NoSuchBucket": 404,
    "PermanentRedirect": 301,
}


@dataclass(frozen=True)
class Request:
    method: str
    bucket: str
    key: str
    query: dict[str, list[str]]
    authorization: str
    is_copy: bool
    body: bytes  # of a POST only

    @property
    def verb(self) -> str:
        """What S3's price list and S3A's counters tell apart."""
        if self.is_copy:
            return "COPY"
        if self.method == "POST":
            return "DELETE" if "delete" in self.query else "UPLOAD"  # begins or completes an upload in parts
        if self.method == "GET" and not self.key:
            return "LIST UPLOADS" if "uploads" in self.query else "LIST"
        return self.method

    @property
    def access_key(self) -> str:
        return self._credential[0]

    @property
    def region(self) -> str:
        return self._credential[2]

    @property
    def _credential(self) -> list[str]:
        return [*self.authorization.partition("Credential=")[2].partition(",")[0].split("/"), "", ""]


def no_proxy_for(s3: S3Server) -> dict[str, Any]:
    """A proxy that is not there, and that the server is not to be reached by; Java does not know the form with a port."""
    return {"HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": f"127.0.0.1:{s3.port}"}


class S3Server:
    """`before` is told each request before it is obeyed, and may return an error code to refuse it; `after` afterwards.

    The server's own client is not watched. With a certificate and its key it speaks TLS.
    """

    def __init__(self, *certificate: str) -> None:
        logging.getLogger("werkzeug").setLevel(logging.CRITICAL)  # a line for each request buries what failed
        self.requests: list[Request] = []
        self.let_pass()
        self._moto = DomainDispatcherApplication(create_backend_app)
        options: dict[str, Any] = {"threaded": True, "request_handler": MotoRequestHandler}
        self._server = make_server("127.0.0.1", 0, self._answer, ssl_context=certificate or None, **options)  # type: ignore[arg-type]
        self.port = self._server.server_port
        self.url = f"http{'s' if certificate else ''}://127.0.0.1:{self.port}"
        self.environment: dict[str, Any] = KEYS | {"AWS_ENDPOINT_URL": self.url}

    def __enter__(self) -> S3Server:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.client = boto3.client(
            "s3",
            endpoint_url=self.url,
            verify=False,
            region_name="us-east-1",
            aws_access_key_id="AKIAHELPER",
            aws_secret_access_key="none",
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def let_pass(self) -> None:
        """Takes both hooks away."""
        self.before: Callable[[Request], str | None] = lambda request: None
        self.after: Callable[[Request], None] = lambda request: None

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        bucket, _, key = unquote(environ["PATH_INFO"].encode("latin-1").decode()).lstrip("/").partition("/")
        method, length, body = environ["REQUEST_METHOD"], int(environ.get("CONTENT_LENGTH") or 0), b""
        if method == "POST":
            body = environ["wsgi.input"].read(length)
            environ["wsgi.input"] = io.BytesIO(body)
        request = Request(
            method, bucket, key, parse_qs(environ["QUERY_STRING"], keep_blank_values=True),
            environ.get("HTTP_AUTHORIZATION", ""), "HTTP_X_AMZ_COPY_SOURCE" in environ, body,
        )  # fmt: skip
        if request.access_key == "AKIAHELPER":
            return self._moto(environ, start_response)
        self.requests.append(request)
        if code := self.before(request):
            environ["wsgi.input"].read(length)
            start_response(f"{STATUS[code]} Refused", [("Content-Type", "application/xml")])
            return [f"<Error><Code>{code}</Code><Message>The test says {code}</Message></Error>".encode()]
        answer = self._moto(environ, start_response)
        self.after(request)
        return answer

    def make_bucket(self, name: str, region: str = "us-east-1") -> None:
        place: dict[str, Any] = {"CreateBucketConfiguration": {"LocationConstraint": region}}
        self.client.create_bucket(Bucket=name, **({} if region == "us-east-1" else place))

    def upload(self, folder: Path, bucket: str, prefix: str, acl: str = "private") -> str:
        """Copies a folder's files to below the prefix; returns its URI."""
        for path in folder.rglob("*"):
            if path.is_file():
                key = f"{prefix}/{path.relative_to(folder)}"
                self.client.put_object(Bucket=bucket, Key=key, Body=path.read_bytes(), ACL=acl)
        return f"s3a://{bucket}/{prefix}"

    def download(self, bucket: str, prefix: str, folder: Path) -> Path:
        """Copies what is below the prefix into the folder, which it empties first."""
        shutil.rmtree(folder, ignore_errors=True)
        for key in self.keys(bucket, prefix and f"{prefix}/"):
            path = folder / key.removeprefix(f"{prefix}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.client.get_object(Bucket=bucket, Key=key)["Body"].read())
        return folder

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """The keys of all objects but the empty ones by which S3A marks a folder."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", []) if not item["Key"].endswith("/")]

    def uploads(self, bucket: str, prefix: str = "") -> list[str]:
        """The keys of uploads that were begun and neither completed nor aborted."""
        found = self.client.list_multipart_uploads(Bucket=bucket, Prefix=prefix)
        return [upload["Key"] for upload in found.get("Uploads", [])]

    def counts(self) -> dict[str, int]:
        """The requests by verb, but for those of the lock, which a long run renews."""
        return dict(sorted(Counter(request.verb for request in self.requests if "_lock-" not in request.key).items()))
