"""Names of output files: one for each image and frame, the same for whoever asks, plain where nothing repeats."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.reporting.output_names import FreeNames, OutputNames

STEMS = st.sampled_from(
    ["a", "A", "a2", "a-2", "a2-2", "v", "v2", "v_0", "v_1", "v_2", "v_01", "v_1_2", "1", "01", "٣"]
)
FILES = st.builds(str.__add__, STEMS, st.sampled_from([".jpg", ".png", ".mp4"]))
PATHS = st.builds(Path, st.sampled_from(["", "x", "y", "x/y"]), FILES)
LISTS = st.lists(PATHS, unique=True, max_size=30)


def kinds(paths: list[Path]) -> dict[Path, bool]:
    return {path: path.suffix == ".mp4" for path in paths}


def all_names(names: OutputNames, paths: list[Path]) -> list[str]:
    """Names of the images and of the first frames of the videos."""
    return [names.of(path, number) for path in paths for number in numbers_of(path)]


def numbers_of(path: Path) -> Sequence[int | None]:
    return range(4) if path.suffix == ".mp4" else (None,)


def test_what_repeats_nowhere_keeps_its_name() -> None:
    paths = [Path("images/a.jpg"), Path("images/000000000139.jpg"), Path("images/v.mp4"), Path("images/v_1.mp4")]
    names = OutputNames(kinds(paths))
    assert [names.of(paths[0]), names.of(paths[1]), names.of(paths[2], 3), names.of(paths[3], 0)] == [
        "a", "000000000139", "v_3", "v_1_0",
    ]  # fmt: skip
    assert [names.title(path) for path in paths] == ["a.jpg", "000000000139.jpg", "v.mp4", "v_1.mp4"]
    assert [names.image_id(path) for path in paths[:2]] == ["a", 139]
    assert names.image_id(paths[2], 3) == "v_3"
    assert [names.image_file(Path(name)) for name in ("b.JPG", "c.heic")] == ["b.JPG", "c.jpg"]


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["a.jpg", "a.png", "a2.jpg"], ["a", "a3", "a2"]),
        (["x/frame.jpg", "y/frame.jpg", "z/frame.jpg"], ["frame", "frame2", "frame3"]),
        (["x/v1.jpg", "y/v1.jpg"], ["v1", "v1-2"]),  # v12 would be another number
        (["x/A.jpg", "y/a.jpg"], ["A", "a2"]),
        (["v.mp4", "v_1.jpg", "v_01.jpg"], ["v_0 v_1 v_2 v_3", "v_1-2", "v_01"]),
        (["v_1.jpg", "v.mp4"], ["v_1", "v2_0 v2_1 v2_2 v2_3"]),
        (["v.jpg", "v.mp4"], ["v", "v2_0 v2_1 v2_2 v2_3"]),
    ],
)
def test_names_by_hand(paths: list[str], expected: list[str]) -> None:
    files = list(map(Path, paths))
    names = OutputNames(kinds(files))
    assert [
        " ".join(all_names(names, [path])) if path.suffix == ".mp4" else names.of(path) for path in files
    ] == expected


@given(LISTS)
def test_known_sources_have_names_of_their_own(paths: list[Path]) -> None:
    names = OutputNames(kinds(paths))
    given_names = all_names(names, paths)
    assert max(Counter(name.casefold() for name in given_names).values(), default=1) == 1
    assert all_names(names, paths) == given_names
    assert all_names(OutputNames(kinds(paths)), paths[::-1]) == all_names(names, paths[::-1]), "whoever asks first"

    first = {path.stem.casefold(): path for path in reversed(paths)}
    for path in first.values():
        rivals = [other for other in paths if other.stem.casefold().startswith(path.stem.casefold().partition("_")[0])]
        if kinds(rivals) == dict.fromkeys(rivals, False):  # no video whose frames could be meant
            assert names.of(path) == path.stem


@given(LISTS)
def test_sources_that_come_one_by_one_have_names_of_their_own(paths: list[Path]) -> None:
    names = OutputNames()
    given_names = all_names(names, paths)
    assert max(Counter(name.casefold() for name in given_names).values(), default=1) == 1
    assert all_names(names, [*paths[::-1], *paths])[len(given_names) :] == given_names
    assert not paths or names.stem(paths[0]) == paths[0].stem


@given(LISTS, st.booleans())
def test_titles_and_ids_name_one_source_each(paths: list[Path], known: bool) -> None:
    names = OutputNames(kinds(paths) if known else {})
    assert len({names.title(path) for path in paths}) == len(paths)
    ids = [names.image_id(path, number) for path in paths for number in numbers_of(path)]
    assert len(set(ids)) == len(ids)
    plain = [image_id for image_id in ids if isinstance(image_id, int)]
    assert set(plain) <= {int(path.stem) for path in paths if path.stem.isdecimal()}


def test_repeated_names_have_their_paths_in_tables_and_ids(caplog: pytest.LogCaptureFixture) -> None:
    paths = [Path(name) for name in ("s/north/frame.jpg", "s/south/frame.jpg", "s/north/1.jpg", "s/north/001.jpg")]
    names = OutputNames(kinds(paths))
    assert [names.title(path) for path in paths] == ["north/frame.jpg", "south/frame.jpg", "1.jpg", "001.jpg"]
    assert [names.image_id(path) for path in paths] == [
        "north/frame.jpg", "south/frame.jpg", "north/1.jpg", "north/001.jpg",
    ]  # fmt: skip
    assert caplog.messages == [
        "s/north/frame.jpg and s/south/frame.jpg have one name: files about the second are called frame2, "
        "and further repeats are numbered too",
        "s/north/frame.jpg and s/south/frame.jpg: image id frame twice; COCO results have their paths instead",
    ]
    caplog.clear()
    alike = OutputNames(kinds([Path("s/north/1.jpg"), Path("s/north-west/1.jpg")]))
    assert alike.title(Path("s/north/1.jpg")) == "north/1.jpg", "a folder is no part of another's name"
    caplog.clear()
    numbers = OutputNames(kinds(paths[2:]))
    assert caplog.messages == [], "label files of 1.jpg and 001.jpg have two names"
    assert [numbers.image_id(path) for path in paths[2:]] == ["1.jpg", "001.jpg"]
    assert caplog.messages == [
        "s/north/1.jpg and s/north/001.jpg: image id 1 twice; COCO results have their paths instead"
    ]


@pytest.mark.parametrize(
    ("paths", "other"),
    [
        (["v.png", "v.mp4", "v_1.jpg"], "v.png and v.mp4 have"),
        (["v_1.mp4", "v_1_0.jpg", "v.mp4"], "v_1.mp4 and v_1_0.jpg"),
        (["v_7.mp4", "x/v_7.jpg"], "v_7.mp4 and x/v_7.jpg"),
        (["v_7.mp4", "v_8.jpg", "v.mp4"], "v_8.jpg and v.mp4"),
    ],
)
def test_the_warning_names_the_two(paths: list[str], other: str, caplog: pytest.LogCaptureFixture) -> None:
    OutputNames(kinds(list(map(Path, paths))))
    assert len(caplog.messages) == 1 and other in caplog.messages[0]


def test_threads_get_the_same_names(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    paths = [Path(f"{folder}/{number}.jpg") for folder in range(20) for number in range(20)]
    expected = [OutputNames(kinds(paths)).of(path) for path in paths]
    names, found = OutputNames(kinds(paths)), {}
    threads = [
        threading.Thread(target=lambda part: found.update({path: names.of(path) for path in part}), args=(paths[k::4],))
        for k in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[path] for path in paths] == expected


class CountedNames(FreeNames):
    """Counts how often a name is tried."""

    trials = 0

    def _take(self, name: str, video: bool) -> bool:
        self.trials += 1
        return super()._take(name, video)


@pytest.mark.parametrize("names", [["frame"] * 2000, ["a"] * 1000 + [f"a{n}" for n in range(1000)]])
@pytest.mark.parametrize("together", [False, True])
def test_the_work_grows_with_the_number_of_names(names: list[str], together: bool) -> None:
    free = CountedNames()
    given_names = free.take_all([(name, False) for name in names]) if together else list(map(free.take, names))
    assert len(set(given_names)) == len(names)
    assert free.trials <= 3 * len(names)


class CountedPath(type(Path())):  # type: ignore[misc]
    """Counts in how many questions it is asked."""

    comparisons = 0

    def __eq__(self, other: object) -> bool:
        CountedPath.comparisons += 1
        return bool(super().__eq__(other))

    def __hash__(self) -> int:
        return int(super().__hash__())


def test_a_question_does_not_go_through_all_names() -> None:
    paths = [CountedPath(f"{number}.jpg") for number in range(500)]
    names = OutputNames(dict.fromkeys(paths, False))
    CountedPath.comparisons = 0
    for path in paths:
        names.of(CountedPath(path)), names.title(path), names.image_id(path)
    assert CountedPath.comparisons <= 10 * len(paths)
