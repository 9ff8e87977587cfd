"""train.py --evolve: a study that is killed, joined by a second process, and used."""

from __future__ import annotations

import csv
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from tests.end_to_end.scripts import command, environment, run_script
from tests.small_dataset import write_small_dataset
from utils.verbs.search import SEARCH_SPACE

pytestmark = pytest.mark.slow
FLAGS = ("--weights", "", "--cfg", "yolov5n.yaml", "--img", 32, "--batch-size", 4, "--epochs", 1, "--workers", 0)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_dataset(tmp_path_factory.mktemp("small"), train=4, val=2)


def rows(study: Path) -> list[dict[str, str]]:
    with (study / "evolve.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_killed_study_goes_on_in_two_processes(dataset: Path, tmp_path: Path) -> None:
    study = tmp_path / "runs" / "evolve" / "exp"
    with subprocess.Popen(
        command("train.py", *FLAGS, "--data", dataset, "--evolve", 4),
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        while not (study / "trial1" / "weights" / "last.pt").is_file():  # in its second trial
            assert process.poll() is None
            time.sleep(0.02)
        process.kill()
    assert [row["trial"] for row in rows(study)] == ["0"]
    both = [
        subprocess.Popen(
            command("train.py", "--evolve", 8, "--resume_evolve", study, "--workers", 0),
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    finished = rows(study)
    assert len(finished) == 8 and len({row["trial"] for row in finished}) == 8
    assert "1" not in {row["trial"] for row in finished}  # the killed one does not count
    assert all("hyp_evolved.yaml" in output for output, _ in said)
    assert not list(study.glob("trial*/weights"))
    assert (study / "evolve.png").stat().st_size > 5000
    best = yaml.safe_load((study / "hyp_evolved.yaml").read_text())
    assert all(low <= best[name] <= high for name, (low, high) in SEARCH_SPACE.items())
    flags = (*FLAGS, "--data", dataset, "--hyp", study / "hyp_evolved.yaml", "--name", "with", "--noplots")
    run_script("train.py", *flags, folder=tmp_path)
    used = yaml.safe_load((tmp_path / "runs" / "train" / "with" / "hyp.yaml").read_text())
    assert used["lr0"] == best["lr0"]


def test_evolve_population_and_its_result(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "hyps").mkdir()
    for number in (1, 2):
        (tmp_path / "hyps" / f"{number}.yaml").write_text(f"lr0: 0.00{number}\nbox: 0.1\n")
    flags = (*FLAGS, "--data", dataset, "--evolve", 3, "--evolve_population", "hyps", "--project", "studies")
    run_script("train.py", *flags, "--name", "mine", folder=tmp_path)
    tried = [(float(row["lr0"]), float(row["box"])) for row in rows(tmp_path / "studies" / "mine")]
    assert tried == [(0.01, 0.05), (0.001, 0.1), (0.002, 0.1)]  # that of --hyp, then the population


def test_evolve_goes_by_the_fitness_that_is_asked_for(dataset: Path, tmp_path: Path) -> None:
    flags = (*FLAGS, "--data", dataset, "--evolve", 2, "--fitness", "AP50+3*AP_S", "--project", "studies")
    run_script("train.py", *flags, "--name", "mine", folder=tmp_path)
    study = tmp_path / "studies" / "mine"
    for row in rows(study):
        header, first = csv.reader((study / f"trial{row['trial']}" / "results.csv").read_text().splitlines())
        assert header[-1].strip() == "fitness" and float(row["fitness"]) == pytest.approx(float(first[-1]), abs=1e-5)
    assert "(AP50+3*AP_S)" in (study / "hyp_evolved.yaml").read_text().splitlines()[0]


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (("--evolve", 3, "--resume_evolve", "nowhere"), 1, "--resume-evolve nowhere: no study.db there"),
        (("--evolve", 3, "--resume_evolve", "text.db"), 1, "text.db: not a study of train.py --evolve"),
        (("--evolve", 3, "--evolve_population", "."), 1, "--evolve-population .: no hyp YAML there"),
        (("--evolve", 0), 2, "--evolve 0: must be at least 1"),
        (("--resume_evolve", "x"), 2, "belong to --evolve N"),
    ],
)
def test_refused(flags: tuple[object, ...], code: int, message: str, dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("not a data base, but long enough to be looked at as one" * 20)
    result = run_script("train.py", *FLAGS, "--data", dataset, *flags, folder=tmp_path, expect=code)
    assert message in result.stderr and len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "runs").exists()
