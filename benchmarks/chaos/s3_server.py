"""A small S3-compatible server for one bucket, in threads of this process, which can be away or answer with errors.

It knows what s3fs asks of an artifact store: put, get with a range, head, delete, and list. It checks no signature.
Objects are files in a folder, so that they outlast it.
"""

from __future__ import annotations

import email.utils
import os
import tempfile
import threading
from contextlib import suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

from ratchet.ports import LOOPBACK, free_port

BUCKET = "ratchet"


class S3Server:
    """Serves the bucket from ``folder`` until the end of the block. ``away`` and ``come_back`` close and open its port;
    while ``failing`` is set, every request is answered with 503."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.failing = threading.Event()
        self.url = f"http://{LOOPBACK}:{free_port()}"
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.come_back()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.away()

    def come_back(self) -> None:
        handler = type("Handler", (_Handler,), {"store": self})
        self._server = _Server((LOOPBACK, urlsplit(self.url).port or 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="s3", daemon=True)
        self._thread.start()

    def away(self) -> None:
        """Accept no connection, and end those that are open."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._server = self._thread = None

    @property
    def is_away(self) -> bool:
        return self._server is None

    def file(self, key: str) -> Path:
        return self.folder / quote(key, safe="")

    def keys(self, prefix: str) -> list[str]:
        return sorted(key for name in os.listdir(self.folder) if (key := unquote(name)).startswith(prefix))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    block_on_close = False


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: S3Server

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        key = self._key()
        if self._refused():
            return
        if key:
            with tempfile.NamedTemporaryFile(dir=self.store.folder.parent, delete=False) as draft:
                draft.write(body)
            os.replace(draft.name, self.store.file(key))
        self._answer(200, headers={"etag": '"0"'})

    def do_GET(self) -> None:
        if self._refused():
            return
        key = self._key()
        if not key:
            self._answer(200, self._listing(), {"content-type": "application/xml"})
            return
        try:
            content = self.store.file(key).read_bytes()
        except FileNotFoundError:
            self._missing()
            return
        wanted, headers = self.headers.get("range", ""), self._about(key)
        if wanted.startswith("bytes="):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            begin, end = int(first), min(int(last) if last else len(content), len(content) - 1)
            headers["content-range"] = f"bytes {begin}-{end}/{len(content)}"
            self._answer(206, content[begin : end + 1], headers)
        else:
            self._answer(200, content, headers)

    def do_HEAD(self) -> None:
        if self._refused():
            return
        key = self._key()
        try:
            headers = self._about(key) if key else {}
            length = self.store.file(key).stat().st_size if key else 0
        except FileNotFoundError:
            self._missing()
            return
        self._answer(200, headers={**headers, "content-length": str(length)})

    def do_DELETE(self) -> None:
        if self._refused():
            return
        with suppress(FileNotFoundError):
            self.store.file(self._key()).unlink()
        self._answer(204)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _key(self) -> str:
        return unquote(urlsplit(self.path).path).removeprefix(f"/{BUCKET}").lstrip("/")

    def _refused(self) -> bool:
        """Whether a server that is failing or away has answered the request."""
        if self.store.is_away:
            self.close_connection = True
            return True
        if self.store.failing.is_set():
            self._answer(503, b"<Error><Code>SlowDown</Code><Message>later</Message></Error>")
            return True
        return False

    def _about(self, key: str) -> dict[str, str]:
        changed_at = self.store.file(key).stat().st_mtime
        return {"etag": '"0"', "last-modified": email.utils.formatdate(changed_at, usegmt=True)}

    def _missing(self) -> None:
        self._answer(404, b"<Error><Code>NoSuchKey</Code><Message>there is none</Message></Error>")

    def _listing(self) -> bytes:
        """All keys of a prefix at once, folded at the delimiter."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        prefix, delimiter = asked.get("prefix", ""), asked.get("delimiter", "")
        parts, folders = [], dict[str, None]()
        for key in self.store.keys(prefix):
            folder, found, _ = key.removeprefix(prefix).partition(delimiter) if delimiter else ("", "", "")
            if found:
                folders[prefix + folder + delimiter] = None
                continue
            with suppress(FileNotFoundError):
                stat = self.store.file(key).stat()
                changed = datetime.fromtimestamp(stat.st_mtime, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
                parts.append(
                    f"<Contents><Key>{escape(key)}</Key><LastModified>{changed}</LastModified><ETag>0</ETag>"
                    f"<Size>{stat.st_size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
                )
        parts += [f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>" for folder in folders]
        return (
            '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>{BUCKET}</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(parts)}</KeyCount>"
            f"<MaxKeys>100000</MaxKeys><IsTruncated>false</IsTruncated>{''.join(parts)}</ListBucketResult>"
        ).encode()

    def _answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        with suppress(OSError):
            self.send_response(status)
            for name, value in {"content-length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
