"""Leases: one at a time, kept while work goes on, and never committed under once they are lost."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from feature_store.control import ControlDatabase
from feature_store.errors import LeaseLost, StoreError
from feature_store.leases import Leases

SPAWN = mp.get_context("spawn")


@pytest.fixture
def control(url: str) -> ControlDatabase:
    return ControlDatabase.open(url)


@pytest.fixture
def leases(control: ControlDatabase) -> Leases:
    return Leases(control)


def until(what: Callable[[], Any], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def never(what: Callable[[], Any], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert not what()
        time.sleep(0.02)


@contextmanager
def away(control: ControlDatabase) -> Iterator[None]:
    """The database cannot be reached."""

    def refused() -> Any:
        raise StoreError("away")

    control.writing = refused  # type: ignore[method-assign]
    try:
        yield
    finally:
        del control.writing  # type: ignore[method-assign]


def test_one_at_a_time(leases: Leases) -> None:
    first = leases.take("retrain", "me", 60)
    assert first
    assert leases.holder("retrain") == "me"
    assert not leases.take("retrain", "you", 60)
    assert leases.take("retrain", "me", 60)  # prolonged
    assert leases.take("other", "you", 60)
    leases.release("retrain", "you")  # not yours
    assert not leases.take("retrain", "you", 60)
    with first:
        pass
    assert leases.take("retrain", "you", -1)
    assert leases.holder("retrain") is None
    assert leases.take("retrain", "me", 60)  # the other's has run out
    assert not leases.prolong("retrain", "you", 60)
    leases.release("retrain", "me")
    assert not leases.prolong("retrain", "me", 60)  # who has given it back has to take it anew


def test_it_is_kept_while_work_goes_on_and_then_given_back(control: ControlDatabase, leases: Leases, url: str) -> None:
    other = Leases(ControlDatabase.open(url))
    with leases.keep("job", 0.6) as lease:
        assert lease
        assert str(os.getpid()) in str(other.holder("job"))
        with other.keep("job", 0.6) as refused:
            assert not refused
        never(lambda: other.take("job", "you", 60), 1.5)
        lease.check()
    assert other.holder("job") is None
    with pytest.raises(ZeroDivisionError), other.keep("job", 60) as lease:
        raise ZeroDivisionError
    left = leases.keep("job", 60)
    assert left.__enter__()
    with away(control):
        left.check()  # nobody else can have it yet
        left.__exit__(None, None, None)
    with other.keep("job", 60) as again:  # the database was away when it was to be given back
        assert not again


def test_a_database_that_is_away_for_a_moment_costs_nothing(control: ControlDatabase, leases: Leases, url: str) -> None:
    other = Leases(ControlDatabase.open(url))
    with leases.keep("job", 1.2) as lease:
        with away(control):
            never(lambda: lease.lost, 0.7)
        never(lambda: lease.lost or other.take("job", "you", 60), 1.0)
        lease.check()


def test_one_that_ran_out_stops_its_holder(control: ControlDatabase, leases: Leases, url: str) -> None:
    other = Leases(ControlDatabase.open(url))
    with leases.keep("job", 0.4) as lease:
        with away(control):
            until(lambda: lease.lost)
            with pytest.raises(LeaseLost):
                lease.check()  # nobody can say who has it
        until(lambda: not lease.lost)  # nobody has had it: the work may go on
        lease.check()
        with away(control):
            until(lambda: other.take("job", "you", 60))
        until(lambda: lease.lost)
        other.release("job", "you")  # that the other is done by now changes nothing
        with pytest.raises(LeaseLost):
            lease.check()
        assert lease.lost
        assert other.take("job", "you", 60)
    assert other.holder("job") == "you"  # and it is not given back for the other


def work(url: str, said: Any) -> None:
    with Leases(ControlDatabase.open(url)).keep("job", 1.0) as lease:
        said.put("begun" if lease else "busy")
        try:
            until(lambda: lease.lost, 60)
            lease.check()
        except LeaseLost:
            said.put("stopped")


@pytest.mark.cores
def test_who_was_asleep_stops_and_who_was_killed_keeps_nobody_out(leases: Leases, url: str) -> None:
    said = SPAWN.Queue()

    def started() -> Any:
        process = SPAWN.Process(target=work, args=(url, said), daemon=True)
        process.start()
        assert said.get(timeout=60) == "begun"
        return process

    asleep = started()
    os.kill(asleep.pid, signal.SIGSTOP)
    assert not leases.take("job", "you", 60)
    until(lambda: leases.take("job", "you", 60))
    os.kill(asleep.pid, signal.SIGCONT)
    assert said.get(timeout=60) == "stopped"
    asleep.join()
    leases.release("job", "you")
    killed = started()
    os.kill(killed.pid, signal.SIGKILL)
    killed.join()
    assert not leases.take("job", "you", 60)
    until(lambda: leases.take("job", "you", 60))
