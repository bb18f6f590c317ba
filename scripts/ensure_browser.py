"""See to it that the browser tests find a Chromium. Standard library only.

Installs Debian's package where that is possible without asking (root on Debian or Ubuntu); elsewhere says how, and the browser
tests are skipped with a reason.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_browser() -> str | None:
    """Path of an installed Chromium or Chrome, or of the one that `SAADI_TEST_BROWSER` names."""
    return os.environ.get("SAADI_TEST_BROWSER") or next((path for name in NAMES if (path := shutil.which(name))), None)


def main() -> int:
    """Exit status 0 in every case: without a browser everything else is still tested."""
    if find_browser():
        return 0
    if hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get"):
        print("installing Chromium for the browser tests ...", file=sys.stderr)
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium"]):
            subprocess.run(command, env=environment, stdout=subprocess.DEVNULL)
    if not find_browser():
        print("no Chromium found: the browser tests will be SKIPPED. Install Chromium or Chrome, "
              "or point SAADI_TEST_BROWSER at one.", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
