"""Clients that ask a served model without a pause, while it is switched below them."""

from __future__ import annotations

import threading
from typing import Any

import httpx

from tests.support.server_processes import START_S


class Clients:
    """Threads that query the live model without a pause, and keep its answers."""

    def __init__(self, url: str, count: int):
        self._url = url
        self._over = threading.Event()
        self.bodies: list[dict[str, Any]] = []
        self.faults: list[str] = []
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(count)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, more: int) -> None:
        """Wait for this number of further answers."""
        target = len(self.bodies) + more
        while len(self.bodies) < target and not self.faults:
            self._over.wait(0.01)

    def _run(self, number: int) -> None:
        asked = {"model": "ratchet", "messages": [{"role": "user", "content": f"{number % 8}+1="}], "max_tokens": 12}
        with httpx.Client(timeout=START_S) as http:
            while not self._over.is_set():
                try:
                    response = http.post(f"{self._url}/v1/chat/completions", json=asked)
                except httpx.HTTPError as error:
                    self.faults.append(repr(error))
                    return
                if response.status_code != 200:
                    self.faults.append(response.text)
                    return
                self.bodies.append(response.json())
