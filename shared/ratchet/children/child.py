"""Inside a child: run the target, tell of its progress, hand back its result, and die with the parent."""

from __future__ import annotations

import faulthandler
import importlib
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from ratchet.children.channel import Channel, Message
from ratchet.disk import is_full
from ratchet.errors import SettingsError, TransientError, UnknownPlugin
from ratchet.parent import end_with_parent

WHERE_SIGNAL = signal.SIGUSR1
"""Makes a child write to its log where each of its threads is."""

Progress = Callable[[dict[str, Any]], None]
"""What a target calls to say that it moves; the message is any JSON object."""

Target = Callable[[dict[str, Any], Progress], dict[str, Any]]


def live(end: socket.socket, log_handle: int, server_pid: int) -> NoReturn:
    """The whole life of a child, from the fork to its exit."""
    os.setpgid(0, 0)
    _die_with(server_pid)
    _write_to(log_handle)
    end.set_inheritable(False)
    channel = Channel(end)
    order = channel.receive_one()
    if order is not None:
        threading.Thread(target=_watch, args=(end,), name="lifeline", daemon=True).start()
        _answer(channel, order)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _answer(channel: Channel, order: Message) -> None:
    speaking = threading.Lock()

    def say(message: Message) -> None:
        with speaking:
            channel.send(message)

    try:
        target = _load(order["target"])
        result = target(order["spec"], lambda progress: say({"progress": progress}))
        if not isinstance(result, dict):
            raise TypeError(f"{order['target']} returned {type(result).__name__}; a target returns a dict")
        say({"result": result})
    except BrokenPipeError:
        return
    except BaseException as error:  # noqa: BLE001  whatever ends a target is handed to the parent
        traceback.print_exc()
        say({"error": _described(error)})


def _load(name: str) -> Target:
    module, _, function = name.partition(":")
    target: Target = getattr(importlib.import_module(module), function)
    return target


def _described(error: BaseException) -> Message:
    return {
        "type": type(error).__name__,
        "message": str(error),
        "trace": "".join(traceback.format_exception(error)),
        "is_out_of_memory": _is_out_of_memory(error),
        "is_of_surroundings": isinstance(error, TransientError) or (isinstance(error, OSError) and is_full(error)),
        "is_of_settings": isinstance(error, SettingsError | UnknownPlugin),
    }


def _is_out_of_memory(error: BaseException) -> bool:
    """torch raises OutOfMemoryError on a GPU, and a bare RuntimeError where the host has no more."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


def _write_to(log_handle: int) -> None:
    os.dup2(log_handle, 1)
    os.dup2(log_handle, 2)
    os.close(log_handle)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    faulthandler.enable(file=sys.stderr)
    faulthandler.register(WHERE_SIGNAL, file=sys.stderr, all_threads=True)


def _watch(end: socket.socket) -> None:
    """The parent says no more after its order: what can be read is its end, then ours and our workers'."""
    try:
        end.recv(1)
    finally:
        os.killpg(0, signal.SIGKILL)


def _die_with(server_pid: int) -> None:
    """Ask the kernel to kill us when the server dies; a second lifeline where a library holds the GIL."""
    end_with_parent(signal.SIGKILL)
    if os.getppid() != server_pid:
        os._exit(1)
