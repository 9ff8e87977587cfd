"""Weights by name: what is on disk wins, official names are fetched, anything else is one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runtime.loopback import Served, closed_port_address, loopback_server
from utils.config import weights_by_name
from utils.config.weights_by_name import OFFICIAL, find_weights
from utils.runtime.downloads import Patience
from utils.user_error import UserError

QUICK = Patience(attempts=2, first_pause=0.001, timeout=5)


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder beside an empty repository; no address but that of the test."""
    work, repository = tmp_path / "work", tmp_path / "repository"
    work.mkdir()
    (repository / "weights").mkdir(parents=True)
    monkeypatch.chdir(work)
    monkeypatch.setattr(weights_by_name, "REPOSITORY", repository)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("SPD_WEIGHTS_URL", "http://127.0.0.1:9/")
    return work


def refused(name: str) -> str:
    with pytest.raises(UserError) as caught:
        find_weights(name, patience=QUICK)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_official_names() -> None:
    assert len(set(OFFICIAL)) == 15
    assert {"yolov5s.pt", "yolov5x6.pt", "yolov5m-cls.pt"} <= set(OFFICIAL)


def test_a_path_that_exists_is_taken_as_it_is(working_folder: Path) -> None:
    (working_folder / "yolov5s.pt").write_bytes(b"mine")
    (working_folder / "best_openvino_model").mkdir()
    assert find_weights("yolov5s.pt") == Path("yolov5s.pt")
    assert find_weights("best_openvino_model") == Path("best_openvino_model")


def test_the_repository_is_the_second_place(working_folder: Path, tmp_path: Path) -> None:
    stored = tmp_path / "repository" / "weights" / "yolov5s.pt"
    stored.write_bytes(b"stored")
    assert find_weights("yolov5s.pt") == stored
    (working_folder / "yolov5s.pt").write_bytes(b"mine")
    assert find_weights("yolov5s.pt") == Path("yolov5s.pt")


@pytest.mark.parametrize("slash", ["", "/"])
def test_an_official_name_is_fetched_to_the_working_folder(
    working_folder: Path, monkeypatch: pytest.MonkeyPatch, slash: str
) -> None:
    (working_folder / "models").mkdir()
    with loopback_server({"v/yolov5s6.pt": Served(b"weights", cuts=[3])}) as server:
        monkeypatch.setenv("SPD_WEIGHTS_URL", server.url("v") + slash)
        assert find_weights("yolov5s6.pt", patience=QUICK) == Path("yolov5s6.pt")
        assert find_weights("models/yolov5s6.pt", patience=QUICK) == Path("models/yolov5s6.pt")
    assert (working_folder / "yolov5s6.pt").read_bytes() == b"weights"
    assert (working_folder / "models" / "yolov5s6.pt").read_bytes() == b"weights"


def test_the_known_size_is_checked(working_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = Served(bytes(4_062_132))
    with loopback_server({"yolov5n.pt": served}) as server:
        monkeypatch.setenv("SPD_WEIGHTS_URL", server.address)
        assert "the server has 4062132 bytes instead of 4062133" in refused("yolov5n.pt")
        served.changed_to(bytes(4_062_133), '"v2"')
        assert find_weights("yolov5n.pt", patience=QUICK).stat().st_size == 4_062_133
    assert [path.name for path in working_folder.iterdir()] == ["yolov5n.pt"]


def test_offline_names_the_address_and_the_place(working_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = closed_port_address()
    monkeypatch.setenv("SPD_WEIGHTS_URL", address)
    message = refused("yolov5m.pt")
    assert f"{address}/yolov5m.pt: no connection" in message
    assert message.endswith(f"put it at {working_folder / 'yolov5m.pt'}")


def test_the_release_is_the_default_address(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def note(url: str, target: Path, **rest: object) -> Path:
        asked.append(url)
        return target

    monkeypatch.setattr(weights_by_name, "fetch", note)
    monkeypatch.delenv("SPD_WEIGHTS_URL")
    find_weights("yolov5l.pt")
    assert asked == ["https://github.com/ultralytics/yolov5/releases/download/v7.0/yolov5l.pt"]


def test_another_name_is_an_error_with_near_ones(working_folder: Path) -> None:
    (working_folder / "mine-best.pt").write_bytes(b"")
    assert refused("yolo5s.pt").startswith("yolo5s.pt: no such weights file; near: yolov5s.pt")
    assert "near: mine-best.pt" in refused("mine_best.pt")
    assert refused("qqqq") == "qqqq: no such weights file"
    assert refused("runs/best.pt") == "runs/best.pt: no such weights file (nor a folder runs)"
    assert "nor a folder typo" in refused("typo/yolov5s.pt")


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 5000])
def test_what_cannot_be_a_name(name: str) -> None:
    assert refused(name)


def test_a_mirror_that_is_no_web_address(working_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPD_WEIGHTS_URL", "file:///srv/weights")
    assert "'file:///srv/weights/yolov5s.pt': not an http or https address" in refused("yolov5s.pt")
