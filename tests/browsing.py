"""Looking at a page in headless Chromium, in frames of several widths and looks: what shows, what it ran."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --enable-logging=stderr"
)
# Runs inside the page with the page's own nonce: draws all figures, or the first, and tells the frame around.
PROBE = """<script nonce="{nonce}">
addEventListener('load', async () => {{
  while (!window.Plotly) await new Promise(done => setTimeout(done, 50));
  document.querySelectorAll('details').forEach(one => one.open = true);
  [...plots()].slice(0, window.name === 'all' ? undefined : 1).forEach(draw);
  await new Promise(done => setTimeout(done, 500));
  const root = document.documentElement, width = root.clientWidth;
  const out = [...document.querySelectorAll('body *')].filter(one => !one.closest('.scroll, .contents, svg')
    && one.getBoundingClientRect().right > width + 1);
  parent.postMessage({{
    look: matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light',
    width, scrolls: root.scrollWidth, back: getComputedStyle(document.body).backgroundColor,
    ink: getComputedStyle(document.querySelector('.xtick text') || document.body).fill,
    asked: performance.getEntriesByType('resource').map(one => one.name),
    outside: out.slice(0, 9).map(one => one.tagName + ' ' + one.textContent.slice(0, 40)),
    drawn: document.querySelectorAll('.js-plotly-plot').length,
    left: document.querySelectorAll('.plot:not(.js-plotly-plot)').length,
  }}, '*');
}});
</script></body>"""
AROUND = """<!DOCTYPE html><body>{frames}<script>
const seen = [];
addEventListener('message', told => {{
  seen.push(told.data);
  document.body.dataset.seen = JSON.stringify(seen);
}});
</script></body>"""


@dataclass(frozen=True)
class Looked:
    """What was seen: a mapping for each frame, and what the browser complained of."""

    frames: list[dict[str, Any]]
    complaints: list[str]


def look(page: Path, frames: Iterable[tuple[int, str]], folder: Path) -> Looked:
    """Open a page in frames of some widths and looks at once; the first frame draws all of its plots.

    Args:
        page: the file; a copy with a script that measures is opened, under the page's own policy.
        frames: width in pixels, and look ("light" or "dark"), of each.
        folder: an empty one, for the copy and the browser's files.
    """
    text = page.read_text()
    found = re.search(r"script-src 'nonce-([\w-]+)'", text)
    assert found, "the page has a policy"
    inside, around = folder / "inside.html", folder / "around.html"
    inside.write_text(text.replace("</body>", PROBE.format(nonce=found[1])))
    placed = "".join(
        f'<iframe src="inside.html" name="{"one" if number else "all"}" width="{width}" height="900" '
        f'style="color-scheme: {scheme}"></iframe>'
        for number, (width, scheme) in enumerate(frames)
    )
    around.write_text(AROUND.format(frames=placed))
    run = subprocess.run(
        [str(CHROMIUM), *FLAGS.split(), "--virtual-time-budget=20000", "--dump-dom",
         f"--user-data-dir={folder / 'profile'}", around.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    seen = re.search(r'data-seen="([^"]*)"', run.stdout)
    complaints = [line for line in run.stderr.splitlines() if "CONSOLE" in line]
    return Looked(json.loads(html.unescape(seen[1])) if seen else [], complaints)
