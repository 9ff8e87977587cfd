"""What joins images: each rule by hand, on hashes made for it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from utils.dataset.image_checks import HASH_SIDE, ImageChecks
from utils.dataset.split.groups import (
    IN_A_ROW,
    LOOK_ALIKE,
    SAME_BYTES,
    SAME_ORIGINAL,
    SAME_PATTERN,
    TOGETHER,
    Grouping,
    GroupingRules,
    find_groups,
)

HEX = "0123456789abcdef" * 2


def unlike(count: int) -> np.ndarray:
    """Hashes (count, 256) of images that have nothing in common: 90 bits apart or more."""
    hashes = np.random.default_rng(0).random((count, HASH_SIDE**2)) < 0.5
    assert all((a != b).sum() >= 90 for i, a in enumerate(hashes) for b in hashes[:i])
    return hashes


def grouped(
    names: Sequence[str],
    hashes: np.ndarray | None = None,
    rules: GroupingRules | None = None,
    *,
    digests: Sequence[bytes] = (),
    folder: Path = Path("none"),
) -> Grouping:
    hashes = unlike(len(names)) if hashes is None else hashes
    digests = tuple(digests) or tuple(name.encode() for name in names)
    checks = ImageChecks(hashes, tuple(digests), ())
    return find_groups(names, [folder / name for name in names], checks, rules or GroupingRules())


def joined_by(grouping: Grouping) -> list[tuple[int, int, str]]:
    return [(join.first, join.second, join.rule) for join in grouping.joins]


def flipped(bits: np.ndarray, *places: int) -> np.ndarray:
    changed = bits.copy()
    changed[list(places)] ^= True
    return changed


def test_unrelated_images_stay_apart_however_they_are_numbered() -> None:
    grouping = grouped([f"{number:06d}.jpg" for number in range(40)])
    assert grouping.joins == () and grouping.group_of.tolist() == list(range(40))


def test_the_same_bytes_are_one_group_and_an_unreadable_file_is_in_none() -> None:
    grouping = grouped(["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"], digests=[b"1", b"2", b"1", b"", b"1"])
    assert grouping.group_of.tolist() == [0, 1, 0, -1, 0]
    assert joined_by(grouping) == [(0, 2, SAME_BYTES), (2, 4, SAME_BYTES)]


def test_all_pairs_count_and_not_only_the_nearest_one() -> None:
    base = unlike(1)[0]
    left, right = flipped(base, *range(16)), flipped(base, *range(100, 112))  # 28 bits apart
    grouping = grouped(["left.jpg", "right.jpg", "middle.jpg"], np.stack([left, right, base]))
    assert grouping.group_of.tolist() == [0, 0, 0]
    assert [(*join[:3], join.detail) for join in grouping.joins] == [
        (0, 2, LOOK_ALIKE, "16 of 256 bits"),
        (1, 2, LOOK_ALIKE, "12 of 256 bits"),
    ]
    assert grouped(["left.jpg", "right.jpg"], np.stack([left, right])).joins == ()
    assert grouped(["l.jpg", "m.jpg"], np.stack([left, base]), GroupingRules(bits=15)).joins == ()


def test_images_without_features_look_like_none() -> None:
    dark = np.zeros((2, HASH_SIDE**2), bool)
    assert grouped(["f_1.jpg", "f_2.jpg"], dark).joins == ()


def test_versions_of_one_original() -> None:
    names = [f"train/a_jpg.rf.{HEX}.jpg", "b.jpg", f"valid/a_jpg.rf.{HEX[::-1]}.jpg", f"train/b_jpg.rf.{HEX}.jpg"]
    assert joined_by(grouped(names)) == [(0, 2, SAME_ORIGINAL)]


def test_a_pattern_of_the_users_own() -> None:
    names = ["day/flight1_a.jpg", "day/flight2_a.jpg", "night/flight1_b.jpg", "other.jpg"]
    grouping = grouped(names, rules=GroupingRules(pattern=re.compile(r"flight(\d+)_")))
    assert joined_by(grouping) == [(0, 2, SAME_PATTERN)] and grouping.joins[0].detail == "1"
    assert (grouping.matched, grouping.count, grouping.sizes.tolist()) == (3, 3, [2, 1, 1])


@pytest.mark.parametrize(
    ("names", "joined"),
    [
        (("20240131_142530.jpg", "20240131_142559.jpg", "20240131_142629.jpg"), [(0, 1)]),
        (("IMG_2024-01-31T23.59.50.jpg", "IMG_2024-02-01T00.00.05.jpg"), [(0, 1)]),
        (("a/20240131142530.jpg", "b/20240131142531.jpg"), []),  # two folders
        (("train/20240131142530.jpg", "val/20240131142531.jpg"), [(0, 1)]),  # of an earlier split
        (("cam_1532402927612.png", "cam_1532402937000.png", "cam_1532402967000.png"), [(0, 1)]),  # milliseconds
        (("1000092795.jpg", "1000092796.jpg"), []),  # numbers of a web site
        (("20240231_142530.jpg", "20240231_142531.jpg"), []),  # no such day
    ],
)
def test_times_in_names(names: tuple[str, ...], joined: list[tuple[int, int]]) -> None:
    assert joined_by(grouped(names)) == [(*pair, TOGETHER) for pair in joined]
    assert grouped(names, rules=GroupingRules(seconds=0)).joins == ()


def test_times_of_cameras(tmp_path: Path) -> None:
    for name, model, taken in (
        ("a.jpg", "One", "2024:01:31 10:00:00"),
        ("b.jpg", "Two", "2024:01:31 10:00:05"),
        ("c.jpg", "One", "2024:01:31 10:00:29"),
        ("d.jpg", "One", "2024:01:31 10:00:59"),
        ("e.jpg", "One", "0000:00:00 00:00:00"),
        ("f.jpg", "One", ""),
    ):
        tags = Image.Exif()
        tags[0x0110] = model
        tags.get_ifd(0x8769)[0x9003] = taken
        Image.new("RGB", (8, 8)).save(tmp_path / name, exif=tags)
    grouping = grouped([f"{letter}.jpg" for letter in "abcdef"], folder=tmp_path)
    assert joined_by(grouping) == [(0, 2, TOGETHER)] and grouping.joins[0].detail == "29 s"


def test_frames_in_a_row_are_alike_too() -> None:
    base = unlike(1)[0]
    film = [flipped(base, *range(40 * step, 40 * step + 60)) for step in range(4)]
    names = [f"clip_{number}.png" for number in (5, 15, 10)] + ["clip_a.png"]
    # By number 5, 10, 15: places 0, 2, 1. Neighbours are 40 or 120 bits apart.
    hashes = np.stack([base, flipped(base, *range(120)), flipped(base, *range(40)), film[3]])
    grouping = grouped(names, hashes)
    assert joined_by(grouping) == [(0, 2, IN_A_ROW)]
    assert grouped(names, hashes, GroupingRules(frame_bits=80)).group_of.tolist() == [0, 0, 0, 1]
    assert grouped(names, hashes, GroupingRules(frame_bits=0)).joins == ()


def test_a_film_that_an_earlier_split_tore_apart() -> None:
    base = unlike(1)[0]
    hashes = np.stack([base, flipped(base, *range(30)), flipped(base, *range(60))])
    names = ["images/train/f1.jpg", "images/val/f2.jpg", "images/test/f3.jpg"]
    assert grouped(names, hashes).group_of.tolist() == [0, 0, 0]
    assert grouped(["a/f1.jpg", "b/f2.jpg", "c/f3.jpg"], hashes).joins == ()
