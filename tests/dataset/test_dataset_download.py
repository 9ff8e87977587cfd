"""A data set that is not there is fetched from a loopback server, unpacked and converted, once, and resumed if cut."""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import signal
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.dataset.converters.test_formats import visdrone_set
from tests.dataset.images import write_image, write_labels
from tests.runtime.loopback import Served, Server, loopback_server
from utils.config.dataset_file import DATASETS, REPOSITORY
from utils.config.dataset_yaml import CONVERSIONS, DatasetSpec, read_dataset_yaml
from utils.dataset.available_dataset import UNFINISHED, available_dataset, lacks_files, lacks_labels
from utils.dataset.converters import FORMATS
from utils.dataset.converters.aerial_images import VISDRONE_NAMES
from utils.dataset.dataset_download import make_available
from utils.runtime.downloads import Patience
from utils.user_error import UserError

HASTY = Patience(attempts=2, first_pause=0.01, timeout=5)


def zipped(folder: Path) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
    return content.getvalue()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """``labels.zip`` with the folder ``set``, ``val.zip`` and ``train.zip`` with images."""
    source = tmp_path / "source"
    for part in ("train", "val"):
        write_labels(source / "labels" / "set" / "labels" / part / "0.txt", "0 0.5 0.5 0.5 0.5")
        write_image(source / part / part / "0.png", np.zeros((20, 30, 3), np.uint8))
    names = ("labels", "train", "val")
    with loopback_server({f"{name}.zip": Served(zipped(source / name)) for name in names}) as running:
        yield running


def yaml_of(server: Server, folder: Path, train: str = "", more: str = "") -> Path:
    file = folder / "set.yaml"
    checksum = train or hashlib.sha256(server.files["train.zip"].content).hexdigest()
    file.write_text(
        f"path: {folder}/sets/set\ntrain: images/train\nval: images/val\nnames: [thing]\n{more}download:\n"
        f"  - {server.url('labels.zip')}\n"
        f"  - {{url: {server.url('train.zip')}, to: images, sha256: '{checksum}'}}\n"
        f"  - {{url: {server.url('val.zip')}, to: images}}\n"
    )
    return file


def fetched(file: Path) -> DatasetSpec:
    """What `available_dataset` does, in this process."""
    spec = read_dataset_yaml(file)
    if lacks_files(spec) or lacks_labels(spec):
        make_available(spec, HASTY)
    return read_dataset_yaml(file)


def test_what_is_missing_is_fetched_once(server: Server, tmp_path: Path) -> None:
    file = yaml_of(server, tmp_path)
    for _ in range(2):
        spec = fetched(file)
        assert spec.root == tmp_path / "sets" / "set"
    found = sorted(
        str(path.relative_to(tmp_path / "sets")) for path in (tmp_path / "sets").rglob("*") if path.is_file()
    )
    assert found == [
        f"set/{kind}/{part}/0.{end}"
        for kind, end in (("images", "png"), ("labels", "txt"))
        for part in ("train", "val")
    ]
    assert [len(served.requests) for served in server.files.values()] == [1, 1, 1]


def test_a_cut_download_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    file = yaml_of(server, tmp_path)
    server.files["val.zip"].cuts = [50, 0]
    with pytest.raises(UserError, match=r"val\.zip: the connection was cut"):
        fetched(file)
    assert (tmp_path / "sets" / "set" / UNFINISHED).is_dir()
    # The training images are there, so that only the mark of the unfinished download tells that more is to come.
    write_image(tmp_path / "sets" / "set" / "images" / "val" / "1.png", np.zeros((20, 30, 3), np.uint8))
    fetched(file)
    assert server.files["val.zip"].requests[-1].startswith("bytes=50-")
    assert [len(server.files[name].requests) for name in ("labels.zip", "train.zip")] == [1, 1]
    assert not (tmp_path / "sets" / "set" / UNFINISHED).exists()


def test_a_wrong_checksum_is_refused(server: Server, tmp_path: Path) -> None:
    file = yaml_of(server, tmp_path, train="0" * 64)
    with pytest.raises(UserError, match=r"train\.zip: what came has sha256"):
        fetched(file)
    assert not list((tmp_path / "sets" / "set").rglob("*.png"))


def test_an_archive_that_leaves_its_folder_is_refused(server: Server, tmp_path: Path) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("../../evil.txt", "x")
    server.files["train.zip"].changed_to(content.getvalue(), '"evil"')
    with pytest.raises(UserError, match=r"'\.\./\.\./evil\.txt' leads out of the folder"):
        fetched(yaml_of(server, tmp_path))
    assert not list(tmp_path.rglob("evil.txt"))


def test_a_download_that_has_not_what_the_yaml_names(server: Server, tmp_path: Path) -> None:
    file = yaml_of(server, tmp_path)
    file.write_text(file.read_text().replace("val: images/val", "val: images/other"))
    with pytest.raises(UserError, match=r"val: .*images/other does not exist"):
        fetched(file).having("val")


def test_processes_that_ask_at_once_fetch_once(server: Server, tmp_path: Path) -> None:
    file = yaml_of(server, tmp_path)
    threads = [threading.Thread(target=fetched, args=(file,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(served.requests) for served in server.files.values()] == [1, 1, 1]


def test_published_annotations_become_labels(tmp_path: Path) -> None:
    source = visdrone_set(tmp_path / "source")
    content = zipped(source)
    with loopback_server({"val.zip": Served(content)}) as server:
        file = tmp_path / "drones.yaml"
        images = "VisDrone2019-DET-val/images"
        file.write_text(
            f"path: {tmp_path}/drones\ntrain: {images}\nval: {images}\nnames: [{', '.join(VISDRONE_NAMES)}]\n"
            f"convert: visdrone\nannotations: val.json\ndownload: {{url: {server.url('val.zip')}, to: .}}\n"
        )
        spec = fetched(file)
    label = spec.root / "VisDrone2019-DET-val" / "labels" / "0000001_02999_d_0000005.txt"
    assert len(label.read_text().splitlines()) == 3
    assert spec.annotations["val"].is_file()
    label.write_text("0 0.5 0.5 0.1 0.1\n")
    available_dataset(file)  # labels that are there stay
    assert label.read_text() == "0 0.5 0.5 0.1 0.1\n"


def test_an_unknown_format_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("train: a\nval: a\nnames: [a]\nconvert: visdron\n")
    with pytest.raises(UserError, match="'visdron' is not a format; the formats are coco, dota"):
        available_dataset(file)


@pytest.mark.parametrize("file", sorted((REPOSITORY / "data").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_yaml_can_be_had_or_says_how(file: Path) -> None:
    spec = read_dataset_yaml(file)
    assert bool(spec.download) != bool(spec.obtain)
    assert spec.size or file.stem in ("AI-TOD", "DOTA", "TinyPerson", "demo-scenes")
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert Path(content["path"]).parent == DATASETS, "one place for all"
    assert spec.convert is None or spec.convert in FORMATS
    assert set(FORMATS) == set(CONVERSIONS), "the YAML reader knows what can be converted"
    for item in spec.download:
        assert item.folder == spec.root.parent or item.folder.is_relative_to(spec.root)


@pytest.mark.case("Data sets", "no network", "exit 1: the file to bring, how large it is and where to put it")
def test_without_network_the_file_may_be_brought_by_hand(tmp_path: Path) -> None:
    """In either of two ways: the archive at the place that the message names, or what is in it."""
    source = tmp_path / "source"
    write_labels(source / "set" / "labels" / "0.txt", "0 0.5 0.5 0.5 0.5")
    write_image(source / "set" / "images" / "0.png", np.zeros((20, 30, 3), np.uint8))
    file, brought = tmp_path / "set.yaml", tmp_path / "sets" / "set.zip"
    url = "http://127.0.0.1:9/set.zip"  # nobody answers
    file.write_text(
        f"path: {tmp_path}/sets/set\ntrain: images\nval: images\nnames: [thing]\nsize: 7 MB\ndownload: {url}\n"
    )
    message = f"{url}: no connection (Connection refused); get it by other means (7 MB) and put it at {brought}"
    for archive_comes in (True, False):
        with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
            fetched(file)
        if archive_comes:
            brought.write_bytes(zipped(source))
        else:
            shutil.copytree(source / "set", tmp_path / "sets" / "set", dirs_exist_ok=True)
        spec = fetched(file).having("train")
        assert (spec.root / "labels" / "0.txt").read_text() == "0 0.5 0.5 0.5 0.5\n"
        if archive_comes:
            brought.unlink()  # it was left, being the user's
        shutil.rmtree(spec.root)


def test_a_file_that_was_brought_is_checked(server: Server, tmp_path: Path) -> None:
    file, brought = yaml_of(server, tmp_path), tmp_path / "sets" / "set" / "images" / "train.zip"
    brought.parent.mkdir(parents=True)
    brought.write_bytes(b"another one")
    with pytest.raises(UserError, match=rf"^{brought}: is there already, but has sha256 \w+, not \w+; remove it"):
        fetched(file)
    assert brought.read_bytes() == b"another one"


@pytest.mark.slow
def test_what_is_missing_is_fetched_by_a_program_of_its_own(
    server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = yaml_of(server, tmp_path, train="0" * 64)
    with pytest.raises(UserError, match=r"^$"):
        available_dataset(file)
    assert re.fullmatch(r"error: .*train\.zip: what came has sha256 .*", capfd.readouterr().err.splitlines()[-1])
    assert available_dataset(yaml_of(server, tmp_path)).root == tmp_path / "sets" / "set"


def test_a_program_that_was_killed_has_not_said_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("path: none\ntrain: a\nval: a\nnames: [a]\ndownload: https://host/a.zip\n")
    killed: subprocess.CompletedProcess[str] = subprocess.CompletedProcess([], -signal.SIGKILL)
    monkeypatch.setattr(subprocess, "run", lambda *words, **settings: killed)
    with pytest.raises(UserError, match=r"a\.yaml: the program that fetches it was ended by signal 9"):
        available_dataset(file)
