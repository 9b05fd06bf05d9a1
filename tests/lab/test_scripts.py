"""What `scripts/test` makes of a part's outcome."""

import re
import subprocess
from pathlib import Path

import pytest

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
    functions = re.search(r"^check\(\) \{.*?(?=^# The pages)", SCRIPT.read_text(), re.DOTALL | re.MULTILINE)[0]
    program = f"""
        set -u
        logs={tmp_path} passed=0 failed=0 summary=() failures=()
        {functions}
        part_of_it() {{ echo "$1"; return {code}; }}
        {kind} it part_of_it "$1" >/dev/null
        echo "$passed $failed"
        ((${{#failures[@]}})) && printf '%s\\n' "${{failures[@]}}"
        exit 0
    """
    done = subprocess.run(["bash", "-c", program, "bash", said], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{passed} {failed}", *failures], done.stderr
