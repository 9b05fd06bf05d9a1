"""Processes that the laboratory started: every one is known by its pid and ends with the laboratory."""

import os
import signal
import subprocess
import time
from pathlib import Path

from .errors import LabError

# The kernel sends this when the laboratory dies without a chance to clean up.
FOLLOW = ["setpriv", "--pdeathsig", "TERM"]


def start_time(pid: int) -> str | None:
    """When a process started, in clock ticks since boot (proc(5), stat field 22); None if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return stat.rsplit(")", 1)[1].split()[19]


def output(argv: list[str], timeout: float = 30, check: bool = True, stdin: str | None = None) -> subprocess.CompletedProcess:
    """Runs a command to its end, with its output as text; a failure is a LabError unless `check` is off."""
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=timeout, start_new_session=True)
    except FileNotFoundError:
        raise LabError(f"{argv[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise LabError(f"`{' '.join(argv)}` did not end within {timeout} s") from None
    if check and done.returncode != 0:
        raise LabError(f"`{' '.join(argv)}` failed ({done.returncode}): {(done.stderr or done.stdout).strip()}")
    return done


class Process:
    """A command in the background whose output goes to files."""

    def __init__(self, argv: list[str], log: Path):
        self.argv = argv
        self.log = log
        with open(log, "ab") as out:
            # A session of its own: Ctrl-C reaches the laboratory, which ends its processes in order.
            self._popen = subprocess.Popen(
                FOLLOW + argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    def running(self) -> bool:
        """Whether it hasn't ended."""
        return self._popen.poll() is None

    def code(self) -> int | None:
        """Its exit code (negative: the signal that ended it), None while it runs."""
        return self._popen.poll()

    def how(self) -> str:
        """In words, how it ended."""
        code = self.code()
        return f"by signal {-code}" if code is not None and code < 0 else f"with code {code}"

    def wait(self, timeout: float) -> int:
        """Waits for its end and returns the exit code."""
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise LabError(f"`{' '.join(self.argv)}` did not end within {timeout} s\n{self.tail()}") from None

    def signal(self, number: int) -> None:
        """Sends a signal, unless it has ended."""
        self._popen.send_signal(number)

    def stop(self, timeout: float = 5) -> int:
        """Ends it: SIGTERM, and SIGKILL after `timeout` seconds; returns the exit code."""
        if self.running():
            self.signal(signal.SIGTERM)
            try:
                return self._popen.wait(timeout)
            except subprocess.TimeoutExpired:
                self._popen.kill()
        return self._popen.wait()

    def text(self) -> str:
        """What it wrote so far."""
        return self.log.read_text(errors="replace")

    def tail(self, lines: int = 15) -> str:
        """The last lines that it wrote."""
        return "\n".join(self.text().splitlines()[-lines:])


class Processes:
    """All processes of a laboratory."""

    def __init__(self) -> None:
        self._all: list[Process] = []

    def spawn(self, argv: list[str], log: Path) -> Process:
        """Starts one."""
        process = Process(argv, log)
        self._all.append(process)
        return process

    def stop(self, timeout: float = 5) -> None:
        """Ends all, the youngest first; the time-out is for all together."""
        for process in self._all:
            if process.running():
                process.signal(signal.SIGTERM)
        end = time.monotonic() + timeout
        for process in reversed(self._all):
            process.stop(max(0.0, end - time.monotonic()))
        self._all.clear()


def kill(pid: int) -> None:
    """Kills a process that may have ended."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
