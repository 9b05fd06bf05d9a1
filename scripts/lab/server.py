"""A real server: nginx that names itself, and a UDP echo."""

import hashlib
import random
import signal
import socket
import sys
import time
from pathlib import Path

from . import plan
from .errors import LabError
from .namespace import Namespace
from .process import Process

# Files that every server has, by name, with their sizes in bytes.
FILES = {"1k": 1_000, "100k": 100_000, "1m": 1_000_000, "10m": 10_000_000}
SMALL = "1k"
# nginx writes its access log in blocks, at the latest after this time in seconds.
LOG_DELAY = 0.2

CONFIGURATION = """\
daemon off;
user root;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log warn;
events {{ worker_connections 8192; }}
http {{
    log_format short '$server_addr $server_port $status';
    access_log {directory}/access.log short buffer=64k flush=200ms;
    client_body_temp_path {directory}/tmp; proxy_temp_path {directory}/tmp; fastcgi_temp_path {directory}/tmp;
    uwsgi_temp_path {directory}/tmp; scgi_temp_path {directory}/tmp;
    sendfile on;
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
    server {{
        listen 0.0.0.0:{http} backlog=4096;
        listen [::]:{http} ipv6only=on backlog=4096;
        listen 0.0.0.0:{cross} backlog=4096;
        listen [::]:{cross} ipv6only=on backlog=4096;
        add_header X-Server {name} always;
        default_type text/plain;
        location = / {{ return 200 "{name}\\n"; }}
        location /files/ {{ alias {files}/; }}
    }}
}}
"""


def content(name: str) -> bytes:
    """A file's content: the same in every laboratory, and not compressible."""
    return random.Random(name).randbytes(FILES[name])


def digest(name: str) -> str:
    """SHA-256 of a file's content, as hexadecimal digits."""
    return hashlib.sha256(content(name)).hexdigest()


def write_files(directory: Path) -> None:
    """Writes all files."""
    directory.mkdir()
    for name in FILES:
        (directory / name).write_bytes(content(name))


class Server:
    """A real server in its namespace."""

    def __init__(self, name: str, namespace: Namespace, files: Path):
        self.name = name
        self.namespace = namespace
        directory = namespace.directory
        (directory / "tmp").mkdir()
        configuration = directory / "nginx.conf"
        configuration.write_text(
            CONFIGURATION.format(
                directory=directory, name=name, files=files, http=plan.HTTP_PORT, cross=plan.CROSS_PORT
            )
        )
        self._log = directory / "access.log"
        self._processes: list[Process] = [
            namespace.spawn(["nginx", "-e", str(directory / "error.log"), "-c", str(configuration)], "nginx.log"),
            # -S -E: nothing but the standard library is needed, and start-up is quicker without the rest.
            namespace.spawn([sys.executable, "-SE", str(Path(__file__).with_name("echo.py")), name, str(plan.UDP_PORT)]),
        ]

    def wait(self, timeout: float = 10) -> None:
        """Waits until it serves."""
        end = time.monotonic() + timeout
        while not (self._serves(socket.SOCK_STREAM, plan.HTTP_PORT) and self._serves(socket.SOCK_DGRAM, plan.UDP_PORT)):
            for process in self._processes:
                if not process.running():
                    raise LabError(f"{process.argv[4]} of server {self.name} ended: {process.tail()}")
            if time.monotonic() > end:
                raise LabError(f"server {self.name} does not serve after {timeout} s")
            time.sleep(0.02)

    def _serves(self, kind: socket.SocketKind, port: int) -> bool:
        with self.namespace.entered(), socket.socket(socket.AF_INET6, kind) as probe:
            probe.settimeout(0.5)
            try:
                probe.connect(("::1", port))
                if kind == socket.SOCK_DGRAM:
                    probe.send(b"x")
                    probe.recv(100)
                return True
            except OSError:
                return False

    def hush(self) -> None:
        """From now on datagrams end in its echo's buffer."""
        self._processes[1].signal(signal.SIGSTOP)

    def requests(self) -> int:
        """How many HTTP requests it has answered; those of the last LOG_DELAY seconds may be missing."""
        try:
            with open(self._log, "rb") as log:
                return sum(block.count(b"\n") for block in iter(lambda: log.read(1 << 20), b""))
        except FileNotFoundError:
            return 0
