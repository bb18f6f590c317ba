"""Make the README's pictures from the demo project: a contact sheet of the phantom, and the page in headless Chromium.

    python scripts/make_pictures.py --home DIR [--size 1366x768] [--out docs/images] [--dark]

DIR should hold a demo project with scored candidates (`saadi demo`, `saadi generate demo --count 32 --candidates 4`).
Needs the development requirements and a Chromium; only phantom images are ever shown.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import cv2
import numpy as np
from ensure_browser import find_browser
from playwright.sync_api import Page, sync_playwright

from saadi.datasets import phantom

TABS = ("Data", "Generate", "Curate", "Vote", "Align", "Export")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--size", default="1366x768")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("--dark", action="store_true")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    contact_sheet(arguments.out / "phantom.jpg")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen([sys.executable, str(ROOT / "app.py"), "--home", str(arguments.home), "--port", str(port)])
    try:
        wait_for(f"http://127.0.0.1:{port}/healthz")
        width, height = (int(part) for part in arguments.size.split("x"))
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=find_browser(), args=ARGUMENTS)
            scheme = "dark" if arguments.dark else "light"
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            pictures(page, f"http://127.0.0.1:{port}", arguments.out)
            browser.close()
    finally:
        server.terminate()
        server.wait(30)


def contact_sheet(path: Path, *, columns: int = 6, rows: int = 3) -> None:
    """Rendered frames of as many patients, with the label map as a coloured outline in the last row."""
    tiles = []
    for index in range(columns * rows):
        scene = phantom.render(7000 + index, patient=800 + index, size_px=256)
        tile = scene.image.copy()
        if index >= columns * (rows - 1):
            for label, color in list(enumerate(phantom.CLASS_COLORS))[1:]:
                contours, _ = cv2.findContours((scene.label_map == label).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
                cv2.drawContours(tile, contours, -1, tuple(int(color[i : i + 2], 16) for i in (1, 3, 5)), 2)
        tiles.append(tile)
    sheet = np.concatenate([np.concatenate(tiles[row * columns : (row + 1) * columns], 1) for row in range(rows)])
    cv2.imwrite(str(path), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])


def pictures(page: Page, url: str, out: Path) -> None:
    page.add_init_script("localStorage.setItem('saadi.welcomed', '1')")
    page.goto(url)
    page.wait_for_selector("[data-panel=draw][data-loaded]:not([data-loaded=''])", timeout=120_000)
    page.wait_for_selector(".sx-frame", timeout=60_000)
    page.click("#draw-generate")
    page.wait_for_selector("#draw-generate:has-text('Stop')", timeout=30_000)
    page.wait_for_selector("#draw-generate:has-text('variants')", timeout=300_000)
    page.wait_for_selector(".sx-result[data-id] .sx-score", timeout=60_000)
    page.wait_for_timeout(1500)
    page.screenshot(path=out / "draw.png")
    for name in TABS:
        page.get_by_role("tab", name=name, exact=True).click()
        page.wait_for_selector(f"[data-panel={name.lower()}][data-ready]:visible", timeout=30_000)
        page.wait_for_timeout(2500)
        page.screenshot(path=out / f"{name.lower()}.png")


def wait_for(url: str, *, timeout_s: float = 120) -> None:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        try:
            urllib.request.urlopen(url, timeout=2)
            return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(f"{url} did not answer within {timeout_s:.0f} s")


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
