"""Dataset YAML: what is read, what is refused and how."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from utils.config import dataset_file
from utils.config.dataset_file import REPOSITORY, dataset_folder, find_dataset_yaml
from utils.config.dataset_yaml import Download, read_dataset_yaml
from utils.user_error import UserError

GOOD = {"train": "images/train", "val": "[images/val, list.txt]", "names": "[a, b]"}


def _write(folder: Path, **changes: str | None) -> Path:
    for split in ("train", "val"):
        (folder / "images" / split).mkdir(parents=True, exist_ok=True)
    (folder / "list.txt").touch()
    keys = {**GOOD, **changes}
    file = folder / "set.yaml"
    file.write_text("".join(f"{key}: {value}\n" for key, value in keys.items() if value is not None))
    return file


def test_a_yaml_beside_its_images(tmp_path: Path) -> None:
    spec = read_dataset_yaml(_write(tmp_path, nc="2", download="https://example.org/a.zip"))
    assert spec.root == tmp_path.resolve()
    assert spec.train == (tmp_path.resolve() / "images/train",)
    assert spec.val == (tmp_path.resolve() / "images/val", tmp_path.resolve() / "list.txt")
    assert spec.test == ()
    assert spec.names == ("a", "b")
    assert spec.class_count == 2
    assert spec.download == (Download("https://example.org/a.zip", tmp_path.resolve().parent),)
    assert (spec.tile, spec.convert, spec.obtain) == (None, None, "")


def test_names_as_a_table_in_any_order(tmp_path: Path) -> None:
    assert read_dataset_yaml(_write(tmp_path, names="{1: b, 0: a, 2: 7}")).names == ("a", "b", "7")


def test_path_is_looked_for_beside_the_yaml_then_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    _write(work / "data")
    yaml_folder = tmp_path / "yamls"
    yaml_folder.mkdir()
    file = yaml_folder / "set.yaml"
    file.write_text("path: data\ntrain: images/train\nval: images/val\nnames: [a]\n")
    monkeypatch.chdir(work)
    assert read_dataset_yaml(file).root == (work / "data").resolve()
    _write(yaml_folder / "data")
    assert read_dataset_yaml(file).root == (yaml_folder / "data").resolve()


def test_exported_layout_with_a_needless_parent(tmp_path: Path) -> None:
    spec = read_dataset_yaml(_write(tmp_path, train="../images/train"))
    assert spec.train == (tmp_path.resolve() / "images/train",)


def test_unknown_keys_are_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        read_dataset_yaml(_write(tmp_path, roboflow="{a: 1}"))
    assert "'roboflow'" in caplog.text


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"train": None}, "'train' is missing"),
        ({"names": None}, "'names' is missing"),
        ({"val": "images/none"}, "val: "),
        ({"val": "3"}, "val: 3 is not"),
        ({"val": "[]"}, "val: the list is empty"),
        ({"val": "{a: b}"}, "val: "),
        ({"path": "[a]"}, "path: "),
        ({"nc": "3"}, "nc is 3, but names has 2"),
        ({"nc": "two"}, "nc: 'two'"),
        ({"nc": "true"}, "nc: True"),
        ({"names": "{0: a, 2: b}"}, "names: the class numbers"),
        ({"names": "[a, [b]]"}, "names: class 1"),
        ({"names": "[a, no]"}, "names: class 1 is False"),
        ({"names": "a"}, "names: has to be"),
        ({"names": "[]"}, "names: has to be"),
        ({"download": "bash get.sh"}, "download: takes URLs only"),
        ({"download": '"import os\\nos.remove(1)"'}, "download: takes URLs only"),
        ({"download": "[https://a/b.zip, file:///etc/passwd]"}, "file:///etc/passwd"),
        ({"download": "{url: 'https://a/b.zip', sha256: abc}"}, "sha256: 'abc' is not 64"),
        ({"download": "{url: 'https://a/b.zip', to: ../../up}"}, "to: '../../up' is not a folder"),
        ({"download": "{url: 'https://a/b.zip', to: /etc}"}, "to: '/etc' is not a folder"),
        ({"download": "{url: 'https://a/b.zip', run: ls}"}, "'run' is not known"),
        ({"tile": "big"}, "tile: 'big' is not a side in pixels"),
        ({"tile": "16"}, "tile: 16 is not a side in pixels, 32 to 8192"),
        ({"convert": "[voc]"}, "convert: ['voc'] is not a text"),
        ({"train": "!!python/object/apply:os.system [ls]"}, "not valid YAML"),
        ({"train": "[unclosed"}, "not valid YAML"),
        ({"train": "2024-99-99"}, "not valid YAML"),
    ],
)
def test_mistakes_are_one_line_with_file_and_key(tmp_path: Path, changes: dict[str, str | None], text: str) -> None:
    file = _write(tmp_path, **changes)
    with pytest.raises(UserError) as caught:
        read_dataset_yaml(file).having("train", "val")
    message = str(caught.value)
    assert message.startswith(f"{file}:")
    assert text in message
    assert "\n" not in message


def test_a_missing_split_can_wait_for_its_download(tmp_path: Path) -> None:
    file = _write(tmp_path, val="images/later", download="https://example.org/a.zip")
    spec = read_dataset_yaml(file).having("train")
    assert spec.val[0].name == "later"
    with pytest.raises(UserError, match=r"does not exist; download https://example\.org/a\.zip into "):
        spec.having("val")
    many = [f"https://example.org/{i}.zip" for i in range(9)]
    spec = read_dataset_yaml(_write(tmp_path, val="images/later", size="3 GB", download=str(many)))
    with pytest.raises(UserError, match=r"https://example\.org/2\.zip and 6 more \(3 GB\) into " + str(tmp_path)):
        spec.having("val")


def test_downloads_with_a_place_and_a_checksum(tmp_path: Path) -> None:
    entries = (
        "[{url: 'http://a/b.tar.gz', to: images}, {url: 'https://a/c.zip', sha256: " + "0a" * 32 + "}, http://a/d.json]"
    )
    root = tmp_path.resolve()
    assert read_dataset_yaml(_write(tmp_path, download=entries)).download == (
        Download("http://a/b.tar.gz", root / "images"),
        Download("https://a/c.zip", root.parent, "0a" * 32),
        Download("http://a/d.json", root),
    )


def test_what_cannot_be_fetched_says_where_it_is(tmp_path: Path) -> None:
    file = _write(tmp_path, val="images/later", obtain="'register at https://example.org for FOLDER'", size="1 GB")
    with pytest.raises(UserError, match=rf"does not exist; register at https://example\.org for {tmp_path} \(1 GB\)"):
        read_dataset_yaml(file).having("val")


def test_the_folder_of_data_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``../datasets`` beside the repository; what is in ``datasets`` of the repository or working folder is found."""
    repository, work = tmp_path / "a" / "repository", tmp_path / "b" / "work"
    for folder in (repository, work):
        folder.mkdir(parents=True)
    monkeypatch.setattr(dataset_file, "REPOSITORY", repository)
    monkeypatch.chdir(work)
    mine = Path("../datasets/mine")
    assert dataset_folder(mine) == tmp_path / "a" / "datasets" / "mine"
    for there in (repository, work, repository.parent, work.parent):  # each before those that were there already
        (there / "datasets" / "mine").mkdir(parents=True)
        assert dataset_folder(mine) == there / "datasets" / "mine"
    assert dataset_folder(Path("../datasets/mine/deep")) == tmp_path / "a" / "datasets" / "mine" / "deep"
    monkeypatch.setattr(dataset_file, "REPOSITORY", tmp_path / "site-packages" / "program")
    assert dataset_folder(Path("../datasets/other")) == work / "datasets" / "other"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=80), st.booleans())
def test_any_text_is_read_or_refused_in_one_line(tmp_path: Path, text: str, with_keys: bool) -> None:
    file = tmp_path / "any.yaml"
    head = "train: x\nval: x\nnames: " if with_keys else ""
    file.write_bytes((head + text).encode("utf-8", "surrogatepass"))
    try:
        read_dataset_yaml(file)
    except UserError as error:
        assert str(error).startswith(f"{file}:")
        assert "\n" not in str(error)


def test_find_by_name(tmp_path: Path) -> None:
    for name in ("coco128", "coco128.yaml", "data/coco128.yaml"):
        assert find_dataset_yaml(name).resolve() == REPOSITORY / "data" / "coco128.yaml"
    given_file = _write(tmp_path)
    assert find_dataset_yaml(given_file) == given_file
    with pytest.raises(UserError, match="none-such"):
        find_dataset_yaml("none-such")


@pytest.mark.parametrize("file", sorted((REPOSITORY / "data").glob("*.yaml")), ids=lambda file: file.stem)
def test_the_yamls_of_the_repository_are_sound(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    spec = read_dataset_yaml(file)
    assert len(set(spec.names)) == spec.class_count
    assert caplog.text == ""
