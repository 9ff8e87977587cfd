"""A first signal asks, a second one interrupts; afterwards signals do what they did before."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from utils.runtime.stop_signals import Stopped, stop_requests

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_asks_and_the_second_interrupts(number: int) -> None:
    with stop_requests() as request:
        asked_before = request.signal_number
        signal.raise_signal(number)
        assert (asked_before, request.signal_number) == (None, number)
        for second in SIGNALS:
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(second)
        assert request.signal_number == number, "the first one names the exit code"


def test_a_signal_that_is_on_its_way_is_waited_for() -> None:
    with stop_requests() as request:
        assert not request.arrives_within(0.01)
        on_its_way = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM))
        on_its_way.start()
        assert request.arrives_within(60) and request.signal_number == signal.SIGTERM
        assert request.arrives_within(0)
        on_its_way.join()


def test_handlers_come_back_however_the_block_ends() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(ZeroDivisionError), stop_requests():
        assert [signal.getsignal(number) for number in SIGNALS] != before
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_exit_codes_are_those_of_shells() -> None:
    assert [Stopped(number, "stopped").exit_code for number in SIGNALS] == [130, 143]
