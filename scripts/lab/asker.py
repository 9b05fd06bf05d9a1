"""New flows, all the time, and which of them nobody answered."""

import socket
import time

from . import plan
from .flows import Failed, Flows
from .namespace import Namespace


class Asker(Flows):
    """Asks a virtual server for an echo by a new flow every few milliseconds, and notes when it got none."""

    KIND = socket.SOCK_DGRAM
    PROTOCOL = "udp"
    PORT = plan.UDP_PORT

    # Longer than a busy machine pauses: what is lost stays lost.
    PATIENCE = 0.6

    def __init__(self, client: Namespace, vip: plan.Vip, family: int = 4, every: float = 0.01):
        super().__init__(client, vip, family, every)
        self.asked: list[float] = []

    @property
    def missed(self) -> list[float]:
        """When the flows began that got no answer."""
        return [failed.opened for failed in self.failed]

    def run(self) -> None:
        waiting: list[tuple[float, int, socket.socket]] = []
        with self._client.entered():
            while not self._end.is_set() or waiting:
                now = time.monotonic()
                if not self._end.is_set():
                    port, flow = self._open()
                    flow.connect(self._to)
                    flow.send(b"x")
                    waiting.append((now, port, flow))
                    self.asked.append(now)
                left = []
                for since, port, flow in waiting:
                    try:
                        flow.recv(100)
                        self.answered += 1
                        flow.close()
                    except BlockingIOError:
                        if now - since < self.PATIENCE:
                            left.append((since, port, flow))
                            continue
                        self.failed.append(Failed(since, port, f"no answer within {self.PATIENCE} s"))
                        flow.close()
                    except OSError as error:
                        # A real server can be reached, but its echo does not run.
                        self.failed.append(Failed(since, port, error.strerror))
                        flow.close()
                waiting = left
                time.sleep(self._every)
