"""Building and running the measuring program."""
import contextlib
import json
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
# Besides what building needs: testpmd.
PACKAGES = ["dpdk-dev"]


class Failed(Exception):
    """The program could not be built, or ended with an error."""


def prepare(packages=()):
    """Installs the packages that are missing."""
    names = " ".join([*PACKAGES, *packages])
    script = f'. scripts/setup.sh && steerage_packages "${{STEERAGE_PACKAGES[@]}}" {names} && steerage_rust && echo "PATH=$PATH"'
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise Failed("what it needs could not be installed")
    return done.stdout.rpartition("PATH=")[2].strip()


def build(packages=(), bench="lab", features=()):
    """Path of a measuring program, as fresh as the sources: for release, or by the profile that STEERAGE_PROFILE names and with
    the further features in STEERAGE_FEATURES: tests name those of which most is built."""
    path = prepare(packages)
    command = ["cargo", "build", "--profile", os.environ.get("STEERAGE_PROFILE", "release"), "--locked", "--bench", bench]
    command += ["--message-format=json-render-diagnostics"]
    further = os.environ.get("STEERAGE_FEATURES", "").split()
    command += [f"--features={feature}" for feature in [*features, *further]]
    done = subprocess.run(["env", f"PATH={path}", *command], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise Failed("the measuring program doesn't build")
    messages = [json.loads(text) for text in done.stdout.splitlines()]
    made = [m["executable"] for m in messages if m.get("executable") and m["target"]["name"] == bench]
    if not made:
        raise Failed("cargo built no measuring program")
    return made[-1]


def forget_dpdk(prefix):
    """Removes the empty directory that DPDK leaves of each process that it ran in; without one, does nothing."""
    for folder in [Path("/var/run/dpdk"), Path(os.environ.get("XDG_RUNTIME_DIR", "/tmp")) / "dpdk"]:
        with contextlib.suppress(OSError):
            (folder / prefix).rmdir()


def results(lab, arguments, take):
    """Runs the program and gives each result to `take` as it comes."""
    with subprocess.Popen([lab, *arguments], stdout=subprocess.PIPE, text=True) as running:
        try:
            for text in running.stdout:
                take(json.loads(text))
        except BaseException:
            running.kill()
            raise
        finally:
            running.wait()
            forget_dpdk(f"steerage-perf-{running.pid}")
    if running.returncode:
        raise Failed(f"{Path(lab).name} {' '.join(arguments)} ended with {running.returncode}")
