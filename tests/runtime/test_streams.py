"""The next batch on its way to a GPU: in which order copies, waits and computation are told to it."""

from __future__ import annotations

import gc
import itertools
import logging
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.runtime.stand_in_streams import StandInEvent, StandInStream, StandInStreams
from utils.runtime import streams as module
from utils.runtime.streams import StageClock, copied_ahead

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


class Memory:
    """A tensor on the GPU; ``shared`` with the streams that its memory is kept for."""

    def __init__(self) -> None:
        self.shared: list[StandInStream] = []

    def record_stream(self, stream: StandInStream) -> None:
        self.shared.append(stream)


@dataclass(frozen=True)
class Numbered:
    """A batch that is nothing but its number."""

    number: int
    machine: StandInStreams
    tensors: tuple[Any, ...] = ()  # of Memory
    asked: list[torch.device] = field(default_factory=list)

    def copied(self, device: torch.device) -> Numbered:
        self.asked.append(device)
        self.machine.current.ordered.append(self.number)
        return Numbered(self.number, self.machine, (Memory(), Memory()))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInStreams]:
    """One with a GPU's streams."""
    streams = StandInStreams()
    streams.install(monkeypatch.setattr)
    module.has_streams.cache_clear()
    yield streams
    module.has_streams.cache_clear()


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_the_next_batch_is_copied_beside_the_computation(machine: StandInStreams, count: int) -> None:
    batches = [Numbered(number, machine) for number in range(count)]
    given = 0
    for loaded, copy in copied_ahead(batches, GPU):
        (copying,) = machine.made
        assert machine.current is machine.computing, "what the caller orders belongs to its own stream"
        assert loaded is batches[given] and copy.number == given
        assert copying.ordered == list(range(min(given + 2, count))), "the next one is on its way"
        assert machine.computing.reached == list(range(given + 1)), "waited for: this one, and not the next"
        assert all(memory.shared == [machine.computing] for memory in copy.tensors)
        given += 1
    assert given == count and all(batch.asked == [GPU] for batch in batches)
    assert machine.computing.ordered == [], "no copy is in the way of the computation"


def test_no_more_batches_are_taken_or_held_than_the_next(machine: StandInStreams) -> None:
    taken = []
    endless = (taken.append(number) or Numbered(number, machine) for number in itertools.count())  # type: ignore[func-returns-value]
    ahead = copied_ahead(endless, GPU)
    used = [weakref.ref(next(ahead)[1]) for _ in range(3)]
    gc.collect()
    assert taken == [0, 1, 2, 3] and [ref() for ref in used] == [None, None, None]


def test_a_loop_that_is_left_early_ends_the_loader(machine: StandInStreams) -> None:
    ended = []

    def loader() -> Iterator[Numbered]:
        try:
            for number in itertools.count():
                yield Numbered(number, machine)
        finally:
            ended.append(True)

    for loaded, _ in copied_ahead(loader(), GPU):
        if loaded.number == 2:
            break
    gc.collect()
    assert ended == [True]


def test_an_error_of_the_loader_is_raised(machine: StandInStreams) -> None:
    def loader() -> Iterator[Numbered]:
        yield Numbered(0, machine)
        yield Numbered(1, machine)
        raise OSError("unplugged")

    seen = []
    with pytest.raises(OSError, match="unplugged"):
        for loaded, _ in copied_ahead(loader(), GPU):
            seen.append(loaded.number)
    assert seen == [0]


@pytest.mark.parametrize("device", [CPU, torch.device("mps", 0)])
def test_elsewhere_each_batch_is_taken_when_it_is_wanted(device: torch.device) -> None:
    machine = StandInStreams()
    taken = []
    batches = (taken.append(number) or Numbered(number, machine) for number in range(3))  # type: ignore[func-returns-value]
    for count, (loaded, copy) in enumerate(copied_ahead(batches, device), start=1):
        assert copy is loaded and loaded.asked == [] and taken == list(range(count))
    assert taken == [0, 1, 2]


def test_a_gpu_without_streams_is_said_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(device: torch.device) -> None:
        raise RuntimeError("no driver\nand much more")

    monkeypatch.setattr(torch, "Stream", refuse)
    module.has_streams.cache_clear()
    batches = [Numbered(0, StandInStreams())]
    with caplog.at_level(logging.WARNING):
        assert [list(copied_ahead(batches, GPU)) for _ in range(2)] == [[(batches[0], batches[0])]] * 2
    module.has_streams.cache_clear()
    assert caplog.messages == [
        "cuda:0 has no streams (no driver): batches are copied between steps, times are the host's"
    ]


def test_a_gpu_tells_its_own_times(machine: StandInStreams, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host orders everything at once; the GPU is behind, and gets to the ends of its stages later."""
    gpu, waited = iter([10.0, 12.0, 17.0, 20.0, 23.0, 29.0]), []

    class Event(StandInEvent):
        def record(self, stream: StandInStream | None = None) -> None:
            assert stream is machine.computing
            self.time = next(gpu)

        def synchronize(self) -> None:
            waited.append(self.time)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    clock = StageClock(GPU)
    for _ in range(2):
        clock.start()
        clock.lap("preprocess")
        clock.lap("inference")
    assert waited == [], "nobody waits in the loop"
    found = clock.seconds()
    # Of the first batch 10 to 12 and to 17, of the second 20 to 23 and to 29; 17 to 20 belong to no stage.
    assert found["preprocess"] == 2 + 3 and found["inference"] == 5 + 6
    assert waited == [29.0]


def test_elsewhere_the_host_tells_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    host = iter([1.0, 1.5, 4.0, 8.0])
    monkeypatch.setattr("utils.runtime.streams.time", SimpleNamespace(perf_counter=lambda: next(host)))
    clock = StageClock(CPU)
    clock.start()
    clock.lap("a")
    clock.start()
    clock.lap("a")
    assert clock.seconds()["a"] == 0.5 + 4.0
    assert not StageClock(CPU).seconds()
