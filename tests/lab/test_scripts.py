"""What `scripts/test` makes of a part's outcome."""

import re
import subprocess
import time
from pathlib import Path

import pytest
from waiting import until

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "test"
NOTHING = "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured"
GOOD = "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured"
IGNORED = "test result: ok. 2 passed; 0 failed; 9 ignored; 0 measured"
BAD = "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured"


@pytest.mark.parametrize(
    ("kind", "said", "code", "passed", "failed", "failures"),
    [
        ("check", "", 0, 1, 0, []),
        ("check", "", 1, 0, 1, ["it"]),
        ("tests", NOTHING + "\n" + GOOD, 0, 3, 0, []),
        ("tests", GOOD, 1, 3, 1, ["it"]),
        ("tests", BAD, 101, 2, 1, ["it"]),
        ("tests", NOTHING, 0, 0, 1, ["it: it ran no test"]),
        ("tests", "", 0, 0, 1, ["it: it ran no test"]),
        ("tests", IGNORED, 0, 2, 1, ["it: 9 tests did not run"]),
        ("tests", "4 passed in 1.2s", 0, 4, 0, []),
        ("tests", "4 passed, 2 skipped in 61.2s (0:01:01)", 0, 4, 1, ["it: 2 tests did not run"]),
        ("tests", "2 deselected in 0.1s", 5, 0, 1, ["it"]),
        ("tests", "1 failed, 4 passed, 1 error in 1.2s", 1, 4, 2, ["it"]),
    ],
)
def test_a_part(tmp_path, kind, said, code, passed, failed, failures):
    program = f"""
        part_of_it() {{ echo "$1"; return {code}; }}
        {kind} it part_of_it "$1" >/dev/null
    """
    assert outcome(tmp_path, program, said) == (int(failed > 0), [f"{passed} passed, {failed} failed", *failures])


def outcome(logs: Path, program: str, *arguments: str) -> tuple[int, list[str]]:
    """The exit code of what runs these parts and the script's summary, its last lines without the parts' own."""
    text = SCRIPT.read_text()
    functions = re.search(r"^check\(\) \{.*?(?=^# The pages)", text, re.DOTALL | re.MULTILINE)[0]
    summary = text[text.index("awk -F") :]
    program = f"set -u\nlogs={logs} beside=\n{functions}\n{program}\n{summary}"
    done = subprocess.run(["bash", "-c", program, "bash", *arguments], capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    counts = next(i for i, line in enumerate(lines) if re.fullmatch(r"\d+ passed, \d+ failed", line))
    return done.returncode, [line.removeprefix("failed part: ") for line in lines[counts:]]


@pytest.mark.parametrize(
    ("beside", "code", "says"),
    [
        ("check good true; check fine true", 0, ["3 passed, 0 failed"]),
        ("check good true; check bad false", 1, ["2 passed, 1 failed", "bad"]),
        ("check good true; kill -9 $BASHPID", 1, ["2 passed, 1 failed", "what runs beside: it did not run"]),
    ],
)
def test_what_runs_beside(tmp_path, beside, code, says):
    program = f"some() {{ {beside}; }}\nmeanwhile some\ncheck other true >/dev/null\nrejoin >/dev/null 2>&1"
    assert outcome(tmp_path, program) == (code, says)


def test_an_interrupt_ends_what_runs_beside(tmp_path):
    text = SCRIPT.read_text()
    functions = re.search(r"^finish\(\) \{.*?(?=^# The pages)", text, re.DOTALL | re.MULTILINE)[0]
    computing = re.search(r"^computing\(\) \{.*?^\}", text, re.DOTALL | re.MULTILINE)[0]
    slow = tmp_path / "scripts" / "sim"
    slow.parent.mkdir()
    slow.write_text('#!/bin/sh\necho $$ >"$0.pid.new" && mv "$0.pid.new" "$0.pid"\nexec sleep 60\n')
    slow.chmod(0o755)
    (tmp_path / "logs").mkdir()
    program = f"logs=logs beside= pages_before=\n{functions}\n{computing}\ntests() {{ :; }}\nmeanwhile computing\nrejoin"
    script = subprocess.Popen(["bash", "-c", program], cwd=tmp_path)
    pid = slow.with_name("sim.pid")
    until(pid.exists, "it began")
    running = Path("/proc") / pid.read_text().strip()
    assert running.exists()
    script.terminate()
    assert script.wait(5) == 143
    until(lambda: not running.exists(), "it was ended")
