"""Downloads against a server on this machine: whole, cut, resumed, changed, wrong, refused."""

from __future__ import annotations

import hashlib
import io
import threading
import urllib.error
import urllib.request
from http.client import HTTPMessage
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runtime.loopback import Served, closed_port_address, loopback_server
from utils.runtime import downloads
from utils.runtime.downloads import Patience, fetch
from utils.user_error import UserError

QUICK = Patience(attempts=3, first_pause=0.001, timeout=5)
CONTENT = bytes(range(256)) * 40  # 10240 bytes


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refused(url: str, target: Path, *, size: int | None = None, sha256: str | None = None) -> str:
    """The message that a fetch ends with; it is one line and there is no target."""
    with pytest.raises(UserError) as caught:
        fetch(url, target, size=size, sha256=sha256, patience=QUICK)
    assert "\n" not in str(caught.value)
    assert not target.exists()
    return str(caught.value)


def test_a_file_arrives_whole_and_alone(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.zip"
    with loopback_server({"a.zip": Served(CONTENT)}) as server:
        got = fetch(server.url("a.zip"), target, size=10240, sha256=hashlib.sha256(CONTENT).hexdigest().upper())
    assert got == target
    assert target.read_bytes() == CONTENT
    assert names(target.parent) == ["a.zip"]


def test_a_file_that_is_there_is_kept_without_a_request(tmp_path: Path) -> None:
    target = tmp_path / "a.zip"
    target.write_bytes(b"mine")
    served = Served(CONTENT)
    with loopback_server({"a.zip": served}) as server:
        assert fetch(server.url("a.zip"), target) == target
        with pytest.raises(UserError, match="is there already, but has 4 bytes instead of 10240; remove it"):
            fetch(server.url("a.zip"), target, size=10240)
    assert target.read_bytes() == b"mine"
    assert served.requests == []


def test_a_cut_connection_is_taken_up_where_it_broke(tmp_path: Path) -> None:
    served = Served(CONTENT, cuts=[1000, 2000])
    with loopback_server({"a": served}) as server:
        fetch(server.url("a"), tmp_path / "a", patience=QUICK)
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert served.requests == ["", "bytes=1000-", "bytes=3000-"]


def test_a_later_run_takes_up_what_an_earlier_one_left(tmp_path: Path) -> None:
    served = Served(CONTENT, cuts=[100, 100, 100])
    with loopback_server({"a": served}) as server:
        message = refused(server.url("a"), tmp_path / "a")
        assert "cut after 300 of 10240 bytes" in message
        assert names(tmp_path) == ["a.part", "a.part.origin"]
        fetch(server.url("a"), tmp_path / "a", patience=QUICK)
    assert served.requests[-1] == "bytes=300-"
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert names(tmp_path) == ["a"]


def test_attempts_are_counted_anew_after_progress(tmp_path: Path) -> None:
    content = bytes(5 << 20)
    served = Served(content, cuts=[1 << 20] * 4)
    with loopback_server({"a": served}) as server:
        fetch(server.url("a"), tmp_path / "a", patience=Patience(attempts=2, first_pause=0.001))
    assert (tmp_path / "a").stat().st_size == len(content)
    assert len(served.requests) == 5


def test_without_ranges_it_starts_over(tmp_path: Path) -> None:
    served = Served(CONTENT, ranges=False, cuts=[1000])
    with loopback_server({"a": served}) as server:
        fetch(server.url("a"), tmp_path / "a", patience=QUICK)
    assert served.requests == ["", "bytes=1000-"]
    assert (tmp_path / "a").read_bytes() == CONTENT


@pytest.mark.parametrize(("tag", "more"), [('"v2"', b""), ("", b"longer")])
def test_halves_of_two_files_are_never_joined(tmp_path: Path, tag: str, more: bytes) -> None:
    served = Served(CONTENT, cuts=[1000] * 3, tag='"v1"' if tag else "")
    newer = CONTENT[::-1] + more
    with loopback_server({"a": served}) as server:
        refused(server.url("a"), tmp_path / "a")
        served.changed_to(newer, tag)
        fetch(server.url("a"), tmp_path / "a", patience=QUICK)
    assert (tmp_path / "a").read_bytes() == newer


@pytest.mark.parametrize(("tag", "condition"), [('"v1"', '"v1"'), ('W/"v1"', "")])
def test_only_a_strong_tag_vouches_for_equal_bytes(tmp_path: Path, tag: str, condition: str) -> None:
    served = Served(CONTENT, tag=tag, cuts=[1000])
    with loopback_server({"a": served}) as server:
        fetch(server.url("a"), tmp_path / "a", patience=QUICK)
    assert served.conditions == ["", condition]


def test_the_part_of_another_address_is_not_used(tmp_path: Path) -> None:
    files = {"a": Served(CONTENT, cuts=[1000] * 3), "b": Served(CONTENT[::-1])}
    with loopback_server(files) as server:
        refused(server.url("a"), tmp_path / "x")
        fetch(server.url("b"), tmp_path / "x", patience=QUICK)
    assert (tmp_path / "x").read_bytes() == CONTENT[::-1]
    assert files["b"].requests == [""]


def test_a_range_that_was_not_asked_for_is_not_used(tmp_path: Path) -> None:
    served = Served(CONTENT, cuts=[1000], shift=256)
    with loopback_server({"a": served}) as server:
        fetch(server.url("a"), tmp_path / "a", patience=QUICK)
    assert served.requests == ["", "bytes=1000-", ""]
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_a_stray_part_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "a.part").write_bytes(b"something")
    (tmp_path / "a.part.origin").write_text("[1, 2")
    with loopback_server({"a": Served(CONTENT)}) as server:
        fetch(server.url("a"), tmp_path / "a", patience=QUICK)
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_a_spoilt_beginning_is_thrown_away_once_the_checksum_shows_it(tmp_path: Path) -> None:
    served = Served(CONTENT, cuts=[1000] * 3)
    with loopback_server({"a": served}) as server:
        refused(server.url("a"), tmp_path / "a")
        part = tmp_path / "a.part"
        part.write_bytes(bytes(len(part.read_bytes())))
        fetch(server.url("a"), tmp_path / "a", sha256=hashlib.sha256(CONTENT).hexdigest(), patience=QUICK)
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_a_part_that_was_whole_is_only_renamed(tmp_path: Path) -> None:
    served = Served(CONTENT, cuts=[1000] * 3)
    with loopback_server({"a": served}) as server:
        refused(server.url("a"), tmp_path / "a")
        (tmp_path / "a.part").write_bytes(CONTENT)
        fetch(server.url("a"), tmp_path / "a", patience=QUICK)
    assert len(served.requests) == 3
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_a_part_longer_than_the_file_starts_over(tmp_path: Path) -> None:
    served = Served(CONTENT, cuts=[1000] * 3)
    with loopback_server({"a": served}) as server:
        refused(server.url("a"), tmp_path / "a")
        (tmp_path / "a.part").write_bytes(CONTENT + b"more")
        fetch(server.url("a"), tmp_path / "a", patience=QUICK)
    assert served.requests[3:] == ["bytes=10244-", ""]
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_a_wrong_size_is_refused_before_the_download(tmp_path: Path) -> None:
    with loopback_server({"a": Served(CONTENT)}) as server:
        message = refused(server.url("a"), tmp_path / "a", size=10241)
    assert "the server has 10240 bytes instead of 10241" in message
    assert server.url("a") in message
    assert str(tmp_path / "a") in message


@pytest.mark.parametrize(
    ("size", "reason"), [(10239, "sent more than 10239 bytes"), (10241, "has 10240 bytes instead of 10241")]
)
def test_a_wrong_size_is_refused_where_the_server_states_none(tmp_path: Path, size: int, reason: str) -> None:
    with loopback_server({"a": Served(CONTENT, length=False)}) as server:
        assert reason in refused(server.url("a"), tmp_path / "a", size=size)
        assert names(tmp_path) == []
        fetch(server.url("a"), tmp_path / "a", size=10240, patience=QUICK)
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_a_wrong_checksum_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with loopback_server({"a": Served(CONTENT)}) as server:
        message = refused(server.url("a"), tmp_path / "a", sha256="0" * 64)
    assert f"sha256 {hashlib.sha256(CONTENT).hexdigest()}, not 0000" in message
    assert names(tmp_path) == []


def test_404_is_said_at_once(tmp_path: Path) -> None:
    with loopback_server({"a": Served(CONTENT, statuses=[404] * 9)}) as server:
        message = refused(server.url("a"), tmp_path / "a")
    assert f"{server.url('a')}: HTTP 404 Not Found; get it by other means and put it at {tmp_path / 'a'}" == message
    assert len(server.files["a"].requests) == 1


def test_a_server_out_of_breath_is_asked_again(tmp_path: Path) -> None:
    served = Served(CONTENT, statuses=[503, 429])
    with loopback_server({"a": served, "b": Served(CONTENT, statuses=[503] * 3)}) as server:
        fetch(server.url("a"), tmp_path / "a", patience=QUICK)
        assert "HTTP 503 Service Unavailable" in refused(server.url("b"), tmp_path / "b")
    assert len(served.requests) == 3


def test_offline(tmp_path: Path) -> None:
    url = closed_port_address() + "/a"
    message = refused(url, tmp_path / "a")
    assert message.startswith(f"{url}: no connection (")
    assert message.endswith(f"put it at {tmp_path / 'a'}")
    assert names(tmp_path) == []


def test_a_web_page_is_not_the_file(tmp_path: Path) -> None:
    page = Served(b"<html>log in to this network</html>", content_type="text/html; charset=utf-8")
    with loopback_server({"a": page}) as server:
        assert "sent a web page, not the file" in refused(server.url("a"), tmp_path / "a")
    assert names(tmp_path) == []


def test_redirects_within_the_web_are_followed_with_the_range(tmp_path: Path) -> None:
    real = Served(CONTENT, cuts=[1000])
    with loopback_server({"a": Served(b"", location="/real"), "real": real}) as server:
        fetch(server.url("a"), tmp_path / "a", patience=QUICK)
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert real.requests == ["", "bytes=1000-"]


@pytest.mark.parametrize("location", ["file:///etc/hostname", "ftp://127.0.0.1/a", "data:,a", "/a"])
def test_other_redirects_are_not_followed(tmp_path: Path, location: str) -> None:
    with loopback_server({"a": Served(b"", location=location)}) as server:
        assert "HTTP 302 Found, a redirect that is not followed" in refused(server.url("a"), tmp_path / "a")


@pytest.mark.parametrize(("start", "followed"), [("http", True), ("https", False)])
def test_a_secure_address_stays_secure(start: str, followed: bool) -> None:
    asked = urllib.request.Request(f"{start}://127.0.0.1/a")
    answer = asked, io.BytesIO(), 302, "Found", HTTPMessage()
    assert downloads._Redirects().redirect_request(*answer, "https://127.0.0.1/b") is not None
    if followed:
        assert downloads._Redirects().redirect_request(*answer, "http://127.0.0.1/b") is not None
    else:
        with pytest.raises(urllib.error.HTTPError):
            downloads._Redirects().redirect_request(*answer, "http://127.0.0.1/b")


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/hostname",
        "ftp://127.0.0.1/a",
        "a.zip",
        "",
        "http://",
        "http://127.0.0.1:port/a",
        "http://[::1/a",
        "http://127.0.0.1/a b",
        "http://127.0.0.1/a\nHost: b",
        "http://127.0.0.1/\u00e4",
    ],
)
def test_other_addresses_are_refused(tmp_path: Path, url: str) -> None:
    assert "not an http or https address" in refused(url, tmp_path / "a")
    assert names(tmp_path) == []


def test_a_host_name_that_cannot_be_one(tmp_path: Path) -> None:
    assert "not a valid address" in refused("http://a..b/a", tmp_path / "a")


def test_a_target_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with loopback_server({"a": Served(CONTENT)}) as server, pytest.raises(UserError, match="cannot be written"):
        fetch(server.url("a"), tmp_path / "file" / "a", patience=QUICK)
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="is there already, but is not a file"):
        fetch("http://127.0.0.1/a", tmp_path / "folder", patience=QUICK)


def test_several_that_want_the_same_file_fetch_it_once(tmp_path: Path) -> None:
    served = Served(bytes(3 << 20))
    got = []
    with loopback_server({"a": served}) as server:
        workers = [
            threading.Thread(target=lambda: got.append(fetch(server.url("a"), tmp_path / "a"))) for _ in range(4)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert got == [tmp_path / "a"] * 4
    assert served.requests == [""]
    assert names(tmp_path) == ["a"]


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 400), max_size=6), ranges=st.booleans(), tag=st.sampled_from(['"v"', 'W/"v"', ""]))
def test_wherever_it_is_cut_the_file_is_whole_or_absent(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], ranges: bool, tag: str
) -> None:
    target = tmp_path_factory.mktemp("cut") / "a"
    content = CONTENT[:400]
    with loopback_server({"a": Served(content, ranges=ranges, tag=tag, cuts=list(cuts))}) as server:
        for _ in range(3):
            try:
                fetch(server.url("a"), target, patience=Patience(attempts=2, first_pause=0))
                break
            except UserError:
                assert not target.exists()
        else:
            fetch(server.url("a"), target, patience=QUICK)
    assert target.read_bytes() == content
    assert names(target.parent) == ["a"]
