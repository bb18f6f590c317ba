"""Bring `.venv` up to date; asks pip only when a requirements file has changed. Standard library only.

Usage: python scripts/setup_env.py [--dev]
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
OLDEST = (3, 11)


def main() -> int:
    """Create the virtual environment where there is none, and install what is missing."""
    if sys.version_info < OLDEST:
        print(f"Python {sys.version_info[0]}.{sys.version_info[1]} is too old, 3.11 or newer is needed; "
              "try: make app PYTHON=python3.12", file=sys.stderr)
        return 1
    names = ["requirements.txt"] + (["requirements-dev.txt"] if "--dev" in sys.argv[1:] else [])
    files = [ROOT / name for name in [*names, "constraints.txt"]]
    digest = hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()
    stamp = VENV / f".installed-{'dev' if len(names) > 1 else 'app'}"
    if stamp.exists() and stamp.read_text() == digest:
        return 0
    if not venv_python().exists():
        print("creating .venv ...", file=sys.stderr)
        venv.create(VENV, with_pip=True)
    print(f"installing {' and '.join(names)}; the first time this takes some minutes ...", file=sys.stderr)
    command = [str(venv_python()), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
               "-c", str(ROOT / "constraints.txt")]
    for name in names:
        command += ["-r", str(ROOT / name)]
    if subprocess.run(command).returncode != 0:
        print("the installation failed (see above); check the network connection and run the same command again", file=sys.stderr)
        return 1
    stamp.write_text(digest)
    return 0


def venv_python() -> Path:
    """The interpreter inside `.venv`."""
    return VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


if __name__ == "__main__":
    sys.exit(main())
