"""The one place that says which version this is, and which commit."""

from pathlib import Path

__version__ = "0.1.0"

_HERE = Path(__file__).resolve()
# Written by tools/build_commit.py into what is built.
_BUILT_FROM = _HERE.with_name("commit.txt")
_CHECKOUT = _HERE.parents[2]


def commit() -> str:
    """The commit that this was built from, else the one that is checked out; empty where neither can be found.

    `-dirty` behind it: files that are in git have been changed since. Starts `git` in a checkout.
    """
    try:
        return _BUILT_FROM.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return _checked_out() if (_CHECKOUT / ".git").exists() else ""


def _checked_out() -> str:
    import subprocess  # noqa: PLC0415 - start-up time

    command = ("git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
    try:
        done = subprocess.run(command, cwd=_CHECKOUT, capture_output=True, text=True, timeout=5, check=False)  # noqa: S603 - fixed
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
