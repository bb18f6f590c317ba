"""The pure parts of the page's JavaScript, by node's own test runner."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent / "javascript"


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed; the browser tests cover the tools too")
def test_javascript():
    files = sorted(map(str, TESTS.glob("*.test.mjs")))
    assert files
    done = subprocess.run(["node", "--test", *files], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
