"""Time from a key to the next pair on screen: `python scripts/vote_latency.py http://127.0.0.1:7860 [--out FILE]`.

Votes on 20 pairs of the first project under the name 'latency test' and takes all of them back. "Painted" is the second
animation frame after the new pair's decoded images are in the page, so that the browser has drawn it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
from pathlib import Path

from playwright.sync_api import sync_playwright

NUM_VOTES = 20
PAUSE_MS = 700
"""Between two votes: a quick reviewer."""
MEASURE = """() => {
    window.paints = [];
    const panel = document.querySelector('[data-panel=vote]');
    let pressed = 0;
    addEventListener('keydown', () => { pressed = performance.now(); }, true);
    new MutationObserver(() => requestAnimationFrame(() => requestAnimationFrame(() => {
        const images = [...panel.querySelectorAll('.sx-pair img')].slice(0, 4);
        const isWhole = images.length === 4 && images.every((image) => image.complete && image.naturalWidth);
        window.paints.push([performance.now() - pressed, isWhole]);
    }))).observe(panel, { attributes: true, attributeFilter: ['data-pair'] });
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_context(viewport={"width": 1366, "height": 768}).new_page()
        page.add_init_script("localStorage.setItem('saadi.person', 'latency test')")
        page.goto(options.url)
        opened = page.evaluate("performance.now()")
        page.get_by_role("tab", name="Vote", exact=True).click(timeout=60_000)
        page.wait_for_selector("[data-panel=vote][data-pair*='-']", timeout=60_000)
        first_pair_ms = page.evaluate("performance.now()")
        page.evaluate(MEASURE)
        for number in range(NUM_VOTES):
            page.wait_for_timeout(PAUSE_MS)
            page.keyboard.press("ArrowLeft" if number % 2 else "ArrowRight")
        page.wait_for_function(f"window.paints.length >= {NUM_VOTES}")
        paints = page.evaluate("window.paints")
        for _ in range(NUM_VOTES):
            page.keyboard.press("z")
            page.wait_for_timeout(50)
        page.wait_for_selector(f"[data-panel=vote][data-saved='{2 * NUM_VOTES}']", timeout=60_000)
        browser.close()
    assert all(is_whole for _, is_whole in paints), "a pair was shown before its images were decoded"
    times = sorted(ms for ms, _ in paints)
    found = {
        "votes": len(times),
        "p50_ms": round(statistics.median(times), 1),
        "p95_ms": round(times[int(0.95 * len(times)) - 1], 1),
        "max_ms": round(times[-1], 1),
        "first_pair_after_opening_s": round(first_pair_ms / 1000, 2),
        "page_loaded_s": round(opened / 1000, 2),
    }
    print(json.dumps(found, indent=1))
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
