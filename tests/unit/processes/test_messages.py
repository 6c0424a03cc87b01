from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest
from ratchet.processes.messages import (
    Channel,
    ChildStatus,
    Message,
    ProcessList,
    ProcessState,
    StartCommand,
    TargetError,
    decode,
    encode,
)


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    one, other = socket.socketpair()
    with one, other:
        yield Channel(one), Channel(other)


@pytest.mark.parametrize(
    "message",
    [
        ChildStatus(None),
        StartCommand("server", ["python"], {"A": "1"}, "logs/server.log"),
        ProcessList({"toy": ProcessState(7, 2, -9), "down": ProcessState(None, 0, None)}),
        TargetError("ValueError", "no such level", "Traceback", False, False, False),
    ],
)
def test_a_message_arrives_as_it_was_sent(ends: tuple[Channel, Channel], message: Message) -> None:
    ends[0].send(encode(message))
    received = ends[1].receive_one()
    assert received is not None
    assert decode(received) == message


def test_messages_that_arrive_together_are_all_received(ends: tuple[Channel, Channel]) -> None:
    for number in range(3):
        ends[0].send({"number": number})
    assert ends[1].receive_one() == {"number": 0}
    assert ends[1].receive(0) == [{"number": 1}, {"number": 2}]
    assert ends[1].receive_one(0.0) is None
    assert not ends[1].closed


def test_messages_sent_before_the_end_are_received(ends: tuple[Channel, Channel]) -> None:
    ends[0].send({"last": True})
    ends[0].close()
    assert list(ends[1].drain()) == [{"last": True}]
    assert ends[1].closed
    assert ends[1].receive_one() is None


def test_descriptors_that_are_received_are_not_inherited_by_programs() -> None:
    ours, theirs = socket.socketpair()
    with theirs, open(os.devnull) as file:
        Channel(ours).send({"kind": "ForkChild"}, [file.fileno()])
        _, handles = Channel(theirs).receive_with_handles(1)
    assert [os.get_inheritable(handle) for handle in handles] == [False]
    os.close(handles[0])
    ours.close()
