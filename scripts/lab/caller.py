"""HTTP requests of which each that fails is known: when its connection was opened, from which port, and who had answered on it."""

import errno
import os
import socket
import time
from dataclasses import dataclass

from . import plan
from .flows import Failed, Flows
from .load import LATE, LATE_SECONDS
from .namespace import Namespace


@dataclass
class Call:
    """A connection, and the request that is under way on it."""

    flow: socket.socket
    port: int
    opened: float
    # When the request began that is under way; none is if it has been answered.
    asked: float | None
    sent: bool = False
    came: bytes = b""
    server: str | None = None

    def answer(self, request: bytes) -> bool:
        """Goes on as far as it can without waiting; whether the answer is there. OSError with the reason if there will be none."""
        try:
            if not self.sent:
                self.flow.send(request)
                self.sent = True
            while part := self.flow.recv(4096):
                self.came += part
                head, _, body = self.came.partition(b"\r\n\r\n")
                # A server's answer is its name and the end of the line.
                if body.endswith(b"\n"):
                    status = head.split(b"\r\n")[0].decode()
                    if " 200 " not in status:
                        raise OSError(status)
                    self.server = body.decode().strip()
                    return True
        except BlockingIOError:
            return False
        raise OSError("it was closed without an answer")


class Caller(Flows):
    """Asks a virtual server for its real server's name every few milliseconds, by HTTP."""

    KIND = socket.SOCK_STREAM
    PROTOCOL = "tcp"
    PORT = plan.HTTP_PORT

    def __init__(self, client: Namespace, vip: plan.Vip, family: int = 4, every: float = 0.01, kept: int = 0):
        """`kept`: so many connections that are kept and used by turns, rather than one for each request."""
        super().__init__(client, vip, family, every)
        self._kept = kept
        ending = "" if kept else "Connection: close\r\n"
        self._request = f"GET / HTTP/1.1\r\nHost: {plan.endpoint(*self._to)}\r\n{ending}\r\n".encode()

    def run(self) -> None:
        idle: list[Call] = []
        busy: list[Call] = []
        with self._client.entered():
            while not self._end.is_set() or busy:
                if not self._end.is_set():
                    busy += self._begin(idle, len(busy))
                left = []
                for call in busy:
                    if self._goes_on(call):
                        left.append(call)
                    elif self._kept and call.asked is None:
                        idle.append(call)
                    else:
                        call.flow.close()
                busy = left
                time.sleep(self._every)
        for call in idle:
            call.flow.close()

    def _begin(self, idle: list[Call], busy: int) -> list[Call]:
        """Begins a request, on the connection that has waited for longest or on a new one; none if all that may be are busy."""
        now = time.monotonic()
        if self._kept and len(idle) + busy >= self._kept:
            if not idle:
                return []
            call = idle.pop(0)
            call.asked, call.sent, call.came = now, False, b""
            return [call]
        port, flow = self._open()
        call = Call(flow, port, now, now)
        code = flow.connect_ex(self._to)
        if code not in (0, errno.EINPROGRESS):
            self._fail(call, os.strerror(code))
            flow.close()
            return []
        return [call]

    def _goes_on(self, call: Call) -> bool:
        """Whether its request is still under way."""
        try:
            if call.answer(self._request):
                self.answered += 1
                call.asked = None
                return False
        except OSError as error:
            self._fail(call, error.strerror or str(error))
            return False
        if time.monotonic() - call.asked < LATE_SECONDS:
            return True
        self._fail(call, LATE)
        return False

    def _fail(self, call: Call, why: str) -> None:
        self.failed.append(Failed(call.opened, call.port, why, call.server))
