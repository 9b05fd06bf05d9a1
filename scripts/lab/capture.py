"""Frames that pass a device, as the kernel shows them to a packet socket."""

import ctypes
import socket
import struct
import threading
import time
from dataclasses import dataclass

from scapy.arch.common import compile_filter

from .errors import LabError
from .namespace import Namespace

# <linux/socket.h>, <linux/if_packet.h>; Python's socket module does not name them all.
SO_ATTACH_FILTER = 26
SO_RCVBUFFORCE = 33
SO_TIMESTAMPNS = 35
SOL_PACKET = 263
PACKET_STATISTICS = 6
ETH_P_ALL = 3
DLT_EN10MB = 1  # <pcap/dlt.h>
BUFFER_BYTES = 32 << 20


@dataclass(frozen=True)
class Frame:
    """A frame's first bytes, when the kernel had it (seconds, by the clock of `time.time`), and whether it left by the device."""

    at: float
    left: bool
    head: bytes


class Capture(threading.Thread):
    """Takes what passes a device and a filter (pcap-filter(7)), from now on until it is stopped."""

    def __init__(self, namespace: Namespace, device: str, matching: str, length: int = 128):
        super().__init__(daemon=True)
        self._device, self._length = device, length
        # Of no protocol: it gets nothing before it is bound, when its filter is there.
        with namespace.entered():
            self._wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        program = compile_filter(matching, linktype=DLT_EN10MB)
        # struct sock_fprog of <linux/filter.h>
        attached = struct.pack("HL", program.bf_len, ctypes.addressof(program.bf_insns.contents))
        self._wire.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, attached)
        self._wire.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
        self._wire.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        with namespace.entered():
            self._wire.bind((device, ETH_P_ALL))
        self._wire.settimeout(0.05)
        self._end = threading.Event()
        self._failed: OSError | None = None
        self.frames: list[Frame] = []
        self.start()

    def run(self) -> None:
        while True:
            try:
                head, notes, _flags, source = self._wire.recvmsg(self._length, 64)
            except TimeoutError:
                if self._end.is_set():
                    return
                continue
            except OSError as error:
                self._failed = error
                return
            stamps = [data for _, kind, data in notes if kind == SO_TIMESTAMPNS]
            seconds, nanoseconds = struct.unpack("qq", stamps[0])
            at = seconds + nanoseconds / 1e9
            if self._end.is_set() and at > self._ended:
                return
            self.frames.append(Frame(at, source[2] == socket.PACKET_OUTGOING, head))

    def stop(self) -> list[Frame]:
        """All that came until now, in order; LabError if the kernel had no room for some, or the device went down."""
        self._ended = time.time()
        self._end.set()
        self.join()
        if self._failed:
            raise LabError(f"{self._device} could be captured no longer: {self._failed}")
        _, lost = struct.unpack("II", self._wire.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        self._wire.close()
        if lost:
            raise LabError(f"{lost} frames at {self._device} were not captured")
        return self.frames
