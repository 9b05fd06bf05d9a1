"""New flows, all the time, and which of them nobody answered."""

import itertools
import socket
import threading
import time

from . import plan
from .namespace import Namespace

SOCKETS = {4: socket.AF_INET, 6: socket.AF_INET6}


class Asker(threading.Thread):
    """Asks a virtual server for an echo by a new flow every few milliseconds, and notes when it got none."""

    # Longer than a busy machine pauses: what is lost stays lost.
    PATIENCE = 0.6

    # No flow is one of before, whose session may still stand with a dead server: the kernel, left to choose, repeats ports.
    # Below those that it gives out; a round takes minutes.
    _ports = itertools.cycle(range(10_000, 32_000))

    def __init__(self, client: Namespace, vip: plan.Vip, family: int = 4, every: float = 0.01):
        super().__init__(daemon=True)
        self._client, self._to, self._family, self._every = client, (vip.address(family), plan.UDP_PORT), family, every
        self._end = threading.Event()
        self.asked: list[float] = []
        self.missed: list[float] = []

    def run(self) -> None:
        waiting: list[tuple[float, socket.socket]] = []
        with self._client.entered():
            while not self._end.is_set() or waiting:
                now = time.monotonic()
                if not self._end.is_set():
                    flow = socket.socket(SOCKETS[self._family], socket.SOCK_DGRAM)
                    flow.bind(("", next(self._ports)))
                    flow.connect(self._to)
                    flow.setblocking(False)
                    flow.send(b"x")
                    waiting.append((now, flow))
                    self.asked.append(now)
                left = []
                for since, flow in waiting:
                    try:
                        flow.recv(100)
                        flow.close()
                    except BlockingIOError:
                        if now - since < self.PATIENCE:
                            left.append((since, flow))
                            continue
                        self.missed.append(since)
                        flow.close()
                waiting = left
                time.sleep(self._every)

    def stop(self) -> None:
        """Asks no more, and waits for the last answers."""
        self._end.set()
        self.join()
