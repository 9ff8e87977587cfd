"""One file from the web: resumed where it was cut, checked, and there under its name only when it is whole."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import json
import logging
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from utils.runtime.console_log import Progress
from utils.user_error import UserError

LOGGER = logging.getLogger(__name__)

BLOCK = 1 << 18  # bytes read at once
PROGRESS = 1 << 20  # bytes that make an attempt a success, however it ends
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})  # answers that may be another one a moment later


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a download is tried. ``first_pause`` and ``timeout`` in seconds; the pause doubles each time."""

    attempts: int = 4  # failures in a row without progress
    first_pause: float = 0.5
    timeout: float = 30.0  # without a byte


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is fetched, and where to."""

    url: str
    target: Path
    size: int | None
    sha256: str | None

    @property
    def part(self) -> Path:
        return self.target.with_name(self.target.name + ".part")

    @property
    def origin(self) -> Path:
        """Beside an unfinished file: what it is the beginning of."""
        return self.target.with_name(self.target.name + ".part.origin")

    def failure(self, reason: str) -> FetchError:
        return FetchError(f"{self.url}: {reason}", self.target.resolve())


@dataclass(frozen=True, slots=True)
class _Origin:
    """Of which file on which server the ``.part`` is the beginning."""

    url: str
    total: int | None  # bytes
    validator: str  # strong ETag or date of the file, '' where the server gives none


class FetchError(UserError):
    """A file that could not be fetched; ``reason`` has its address."""

    def __init__(self, reason: str, place: Path, size: str = "") -> None:
        """``place``: where the file may be put by hand; ``size``: how large it is, in words."""
        size = f" ({size})" if size else ""
        super().__init__(f"{reason}; get it by other means{size} and put it at {place}")
        self.reason = reason


class _AttemptError(Exception):
    """An attempt ended early; another one may do better."""


def fetch(
    url: str, target: Path, *, size: int | None = None, sha256: str | None = None, patience: Patience | None = None
) -> Path:
    """Fetch ``url`` (http or https) into the file ``target``, which is returned.

    What arrives is kept in ``<target>.part`` and taken up again by a later attempt or process where the server can
    (RFC 9110, range requests). ``size`` in bytes, ``sha256`` in hexadecimal. A target that is there already is
    checked and kept; nothing is overwritten. Processes that want the same target wait for the first one.

    Raises:
        UserError: no connection, an answer without the file, cut again and again, another size or checksum, a
            target that cannot be written; one line with the address and where to put the file by hand.
    """
    wanted = _Wanted(url, target, size, sha256.lower() if sha256 else None)
    try:
        if target.exists():
            return _kept(wanted)
        _check_address(wanted)
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked_part(wanted) as part:
            if target.exists():  # another process has brought it meanwhile
                wanted.part.unlink(missing_ok=True)
                return _kept(wanted)
            _fill_and_verify(part, wanted, patience or Patience())
            os.fsync(part.fileno())
            wanted.part.replace(target)
            wanted.origin.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{target}: cannot be written: {error.strerror or error}") from error
    return target


def _check_address(wanted: _Wanted) -> None:
    url = wanted.url
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets or a port that are none
        valid = False
    if not valid or not url.isascii() or not url.isprintable() or " " in url:
        raise UserError(f"{url!r}: not an http or https address (other characters than ASCII are written as %XX)")


def _kept(wanted: _Wanted) -> Path:
    problem = _problem(wanted, wanted.target)
    if problem:
        raise UserError(f"{wanted.target}: is there already, but {problem}; remove it to fetch {wanted.url}")
    return wanted.target


def _problem(wanted: _Wanted, path: Path) -> str:
    """What is wrong with a file that should be the wanted one; '' for nothing."""
    if not path.is_file():
        return "is not a file"
    size = path.stat().st_size
    if wanted.size is not None and size != wanted.size:
        return f"has {size} bytes instead of {wanted.size}"
    if wanted.sha256 is None:
        return ""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(PROGRESS):
            digest.update(block)
    return "" if digest.hexdigest() == wanted.sha256 else f"has sha256 {digest.hexdigest()}, not {wanted.sha256}"


@contextmanager
def _locked_part(wanted: _Wanted) -> Iterator[IO[bytes]]:
    """The part open for appending, this process alone; the ranks of a distributed run all ask for the same weights."""
    while True:
        with wanted.part.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_at(wanted.part, file):
                continue  # who held the lock before has renamed or removed it
            try:
                yield file
            finally:
                if file.seek(0, os.SEEK_END) == 0:  # nothing came: leave nothing
                    wanted.part.unlink(missing_ok=True)
                    wanted.origin.unlink(missing_ok=True)
            return


def _is_at(path: Path, file: IO[bytes]) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _fill_and_verify(part: IO[bytes], wanted: _Wanted, patience: Patience) -> None:
    continued = part.tell() > 0
    _fill(part, wanted, patience)
    problem = _problem(wanted, wanted.part)
    if problem and continued:  # the beginning of an earlier run may be to blame
        LOGGER.warning("%s: %s; starting over", wanted.part, problem)
        part.truncate(0)
        _fill(part, wanted, patience)
        problem = _problem(wanted, wanted.part)
    if problem:
        wanted.part.unlink()
        wanted.origin.unlink(missing_ok=True)
        raise wanted.failure(f"what came {problem}")


def _fill(part: IO[bytes], wanted: _Wanted, patience: Patience) -> None:
    """Bring the part to its full length, in as many attempts as make progress."""
    LOGGER.info("fetching %s to %s", wanted.url, wanted.target)
    failures, furthest = 0, part.seek(0, os.SEEK_END)
    while True:
        try:
            _receive(part, wanted, patience.timeout)
            part.flush()
            return
        except _AttemptError as error:
            reached = part.seek(0, os.SEEK_END)
            failures = 1 if reached >= furthest + PROGRESS else failures + 1
            furthest = max(furthest, reached)
            if failures >= patience.attempts:
                raise wanted.failure(str(error)) from error
            time.sleep(patience.first_pause * 2 ** (failures - 1))


def _receive(part: IO[bytes], wanted: _Wanted, timeout: float) -> None:
    """One request: the rest of the part, or all of it where the server does not give rests."""
    have = part.seek(0, os.SEEK_END)
    origin = _read_origin(wanted) if have else None
    if origin is None:
        have = part.truncate(0)
    elif origin.total == have:
        return
    headers = {"User-Agent": "yolov5-spd", "Accept-Encoding": "identity"}
    if origin is not None:
        headers["Range"] = f"bytes={have}-"
        if origin.validator:
            headers["If-Range"] = origin.validator
    try:
        response = _open(wanted, headers, timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            part.truncate(0)  # the file there has become shorter
            raise _AttemptError("the file on the server has changed") from error
        status = f"HTTP {error.code} {http.client.responses.get(error.code, '')}".strip()
        if error.code in TRANSIENT:
            raise _AttemptError(status) from error
        raise wanted.failure(status + (", a redirect that is not followed" if error.code < 400 else "")) from error
    with response:
        total = _total(response, part, have, origin)
        if total is not None and wanted.size not in (None, total):
            raise wanted.failure(f"the server has {total} bytes instead of {wanted.size}")
        if response.status == HTTPStatus.OK:
            _write_origin(wanted, _Origin(wanted.url, total, _validator(response)))
        _copy(response, part, wanted, total)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects from http to http(s) and from https to https; a secure address stays secure."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        allowed = ("https",) if req.type == "https" else ("http", "https")
        if urlsplit(newurl).scheme not in allowed:
            raise urllib.error.HTTPError(req.full_url, code, msg, headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(wanted: _Wanted, headers: dict[str, str], timeout: float) -> http.client.HTTPResponse:
    # Not urlopen, which would follow a redirect to ftp as well.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        _Redirects(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    try:
        response = opener.open(urllib.request.Request(wanted.url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError:
        raise
    except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        reason = f"no connection ({_in_words(cause)})"
        if isinstance(cause, (ssl.SSLCertVerificationError, http.client.InvalidURL)):
            raise wanted.failure(reason) from error
        raise _AttemptError(reason) from error
    except ValueError as error:  # a host name that cannot be one
        raise wanted.failure(f"not a valid address ({_in_words(error)})") from error
    assert isinstance(response, http.client.HTTPResponse)
    return response


def _in_words(cause: object) -> str:
    text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return " ".join(str(text).split())


def _total(response: http.client.HTTPResponse, part: IO[bytes], have: int, origin: _Origin | None) -> int | None:
    """Bytes of the whole file, None if the server does not say; empties the part where the answer starts over."""
    if response.status == HTTPStatus.OK:
        part.truncate(0)
        return response.length
    answer = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    continues = response.status == HTTPStatus.PARTIAL_CONTENT and origin is not None and answer is not None
    if not continues or answer is None or origin is None or int(answer[1]) != have:
        part.truncate(0)
        raise _AttemptError(f"the server answered HTTP {response.status} with other bytes than asked for")
    total = int(answer[2]) if answer[2].isdigit() else origin.total
    if origin.total not in (None, total):
        part.truncate(0)
        raise _AttemptError("the file on the server has changed")
    return total


def _validator(response: http.client.HTTPResponse) -> str:
    tag = response.headers.get("ETag", "")
    # A weak tag (W/...) does not promise equal bytes.
    return str(tag if tag.startswith('"') else response.headers.get("Last-Modified", ""))


def _copy(response: http.client.HTTPResponse, part: IO[bytes], wanted: _Wanted, total: int | None) -> None:
    if response.headers.get_content_type() == "text/html":
        raise wanted.failure("the server sent a web page, not the file")
    done = part.seek(0, os.SEEK_END)
    most = total if wanted.size is None else wanted.size
    with Progress(most, "B", wanted.target.name, done=done) as progress:
        while block := _read(response):
            part.write(block)
            progress.advance(len(block))
            done += len(block)
            if most is not None and done > most:
                part.truncate(0)
                raise wanted.failure(f"the server sent more than {most} bytes")
    if total is not None and done < total:
        raise _AttemptError(f"the connection was cut after {done} of {total} bytes")


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(BLOCK)
    except (OSError, http.client.HTTPException) as error:
        raise _AttemptError(f"the connection was cut ({_in_words(error)})") from error


def _read_origin(wanted: _Wanted) -> _Origin | None:
    """What the part is the beginning of; None if that is unknown or something else than wanted."""
    try:
        origin = _Origin(**json.loads(wanted.origin.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return origin if origin.url == wanted.url else None


def _write_origin(wanted: _Wanted, origin: _Origin) -> None:
    wanted.origin.write_text(json.dumps(asdict(origin)), encoding="utf-8")
