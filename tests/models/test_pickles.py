"""The restricted reader: what it gives back, and what it refuses."""

from __future__ import annotations

import os
import pickle
import resource
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.pickles import read_pickled
from models.restricted_unpickler import TensorRecord
from utils.user_error import UserError


def write_archive(
    path: Path, program: bytes, storages: dict[str, bytes] | None = None, compressed: bool = False
) -> Path:
    kind = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind) as archive:
        archive.writestr("archive/data.pkl", program)
        for key, raw in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", raw)
    return path


class Runs:
    """Pickles to a call of ``function(*arguments)``."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    ("function", "asked"),
    [(os.system, "posix.system"), (eval, "eval"), (getattr, "getattr"), (__import__, "__import__"), (open, "open")],
)
def test_calls_are_refused_by_name(protocol: int, function: Any, asked: str, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    program = pickle.dumps({"model": Runs(function, f"touch {mark}")}, protocol)
    with pytest.raises(UserError, match="refused") as caught:
        read_pickled(write_archive(tmp_path / "hostile.pt", program))
    assert asked in str(caught.value) and "\n" not in str(caught.value)
    assert not mark.exists()


@pytest.mark.parametrize("remembered", [b"r\x00\x00\x00\x10", b"p268435456\n"])
def test_a_memo_that_no_memory_holds_is_refused(remembered: bytes, tmp_path: Path) -> None:
    """Six bytes, which make pickle's own reader take four gigabytes."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match="remembered as number 268435456"):
        read_pickled(write_archive(tmp_path / "large.pt", b"\x80\x02}" + remembered + b"."))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 500_000  # KiB


@pytest.mark.parametrize(
    "name",
    [
        "torch load",
        "torch.hub load",
        "torch._utils _rebuild_device_tensor_from_numpy",
        "torch.nn.modules.module os.system",
        "models.common.os system",
        "utils.user_error UserError",
        "builtins bytearray",
        "torch.storage _load_from_bytes",
        "numpy load",
        "pathlib os",
        "__main__ Model",
        "subprocess Popen",
    ],
)
def test_names_outside_the_list_are_refused(name: str, tmp_path: Path) -> None:
    module, attribute = name.split(" ")
    program = b"\x80\x02c" + f"{module}\n{attribute}\n".encode() + b"."
    with pytest.raises(UserError, match="refused") as caught:
        read_pickled(write_archive(tmp_path / "x.pt", program))
    assert f"{module}.{attribute}" in str(caught.value)


def test_stand_ins_are_inert(tmp_path: Path) -> None:
    """A module class is never imported, whatever state it is given."""
    program = b"\x80\x02cmodels.common\nsomething_unheard_of\n)\x81}X\x08\x00\x00\x00__call__K\x01sb."
    content = read_pickled(write_archive(tmp_path / "x.pt", program)).content
    assert type(content).path == "models.common.something_unheard_of"
    assert content.attributes == {"__call__": 1}


def test_state_given_to_an_allowed_name_does_not_stick(tmp_path: Path) -> None:
    # BUILD with slot state sets attributes on whatever is on the stack, here on the rebuilder itself.
    program = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(N}X\x0c\x00\x00\x00__defaults__)stb."
    with pytest.raises(UserError, match="not a readable checkpoint"):
        read_pickled(write_archive(tmp_path / "x.pt", program))
    torch.save({"a": torch.ones(2)}, tmp_path / "fine.pt")
    file = read_pickled(tmp_path / "fine.pt")
    assert file.tensor(file.content["a"]).tolist() == [1, 1]


def test_tensors_come_back_with_shape_dtype_and_values(tmp_path: Path) -> None:
    base = torch.arange(24.0).view(4, 6)
    values = {
        "half": base.half(),
        "bfloat": base.bfloat16(),
        "double": base.double(),
        "long": base.long(),
        "bool": base > 3,
        "transposed": base.t(),
        "slice": base[1:3, ::2],
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(base),
        "last": base.view(1, 2, 3, 4).to(memory_format=torch.channels_last),
    }
    torch.save(OrderedDict(values), tmp_path / "t.pt")
    file = read_pickled(tmp_path / "t.pt")
    for name, value in values.items():
        expected = value.detach().float() if value.is_floating_point() else value
        found = file.tensor(file.content[name])
        assert found.dtype == expected.dtype and torch.equal(found, expected), name


def record_program(size: str, stride: str) -> bytes:
    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"
    return (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\x00" + size.encode() + stride.encode()
        + b"I00\nccollections\nOrderedDict\n)RtR."
    )  # fmt: skip


@pytest.mark.parametrize(
    ("size", "stride"),
    [("(I100\nt", "(I1\nt"), ("(I1000000000000\nt", "(I0\nt"), ("(I2\nt", "(I1000\nt"), ("(I-4\nt", "(I1\nt")],
)
def test_tensors_larger_than_their_storage_are_refused(size: str, stride: str, tmp_path: Path) -> None:
    path = write_archive(tmp_path / "x.pt", record_program(size, stride), {"0": bytes(16)})
    with pytest.raises(UserError, match="not a readable checkpoint"):
        file = read_pickled(path)
        file.tensor(file.content)


def test_a_well_formed_record_is_read(tmp_path: Path) -> None:
    file = read_pickled(write_archive(tmp_path / "x.pt", record_program("(I2\nI2\nt", "(I2\nI1\nt"), {"0": bytes(16)}))
    assert isinstance(file.content, TensorRecord)
    assert torch.equal(file.tensor(file.content), torch.zeros(2, 2))


def test_damaged_files_give_one_line(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "fine.pt")
    whole = (tmp_path / "fine.pt").read_bytes()
    broken = {
        "text.pt": b"not a checkpoint at all",
        "empty.pt": b"",
        "cut.pt": whole[: len(whole) // 2],
    }
    for name, raw in broken.items():
        (tmp_path / name).write_bytes(raw)
        with pytest.raises(UserError) as caught:
            read_pickled(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)
    for program in (b"", b".", b"\x80\x02}", b"\x80\x02(((", b"\x80\x02X\xff\xff\xff\x7fab.", pickle.dumps([])[:-1]):
        with pytest.raises(UserError, match="not a readable checkpoint"):
            read_pickled(write_archive(tmp_path / "y.pt", program))
    missing = read_pickled(write_archive(tmp_path / "z.pt", record_program("(I2\nt", "(I1\nt")))
    with pytest.raises(UserError, match="not a readable checkpoint"):
        missing.tensor(missing.content)


def test_compressed_archives_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="compressed"):
        read_pickled(write_archive(tmp_path / "bomb.pt", pickle.dumps({}), compressed=True))


def test_endless_nesting_is_refused(tmp_path: Path) -> None:
    nested: Any = {}
    for _ in range(200):
        nested = {"deeper": nested}
    file = read_pickled(write_archive(tmp_path / "deep.pt", pickle.dumps(nested)))
    with pytest.raises(UserError, match="nested too deep"):
        file.plain(file.content)


def test_few_bytes_that_spell_endless_values_are_refused(tmp_path: Path) -> None:
    values: Any = ["x"]
    for _ in range(35):
        values = [values, values]
    file = read_pickled(write_archive(tmp_path / "bomb.pt", pickle.dumps(values)))
    with pytest.raises(UserError, match="too often"):
        file.plain(file.content)


def test_modules_that_contain_themselves_are_refused(tmp_path: Path) -> None:
    # A stand-in whose _modules holds it twice: m = C(); m.__dict__ = {"_modules": {"a": m, "b": m}}
    program = (
        b"\x80\x02cmodels.yolo\nModel\n)\x81q\x00}X\x08\x00\x00\x00_modules"
        b"}(X\x01\x00\x00\x00ah\x00X\x01\x00\x00\x00bh\x00usb."
    )
    file = read_pickled(write_archive(tmp_path / "loop.pt", program))
    with pytest.raises(UserError, match="nested too deep"):
        file.state_dict(file.content)


DAMAGED = (
    pickle.dumps({"model": OrderedDict(a=[1, 2.5, "text"], b=(None, True)), "names": ["cat", "dog"]}, 2),
    record_program("(I2\nt", "(I1\nt"),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    program=st.sampled_from(DAMAGED),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_damaged_programs_end_in_one_line_or_in_content(
    program: bytes, changes: list[tuple[float, int]], tmp_path: Path
) -> None:
    damaged = bytearray(program)
    for place, value in changes:
        damaged[int(place * len(damaged))] = value
    path = write_archive(tmp_path / "damaged.pt", bytes(damaged), {"0": bytes(16)})
    try:
        file = read_pickled(path)
        file.plain(file.content)
    except UserError as error:
        assert "\n" not in str(error)
