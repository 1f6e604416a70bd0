"""What every page is written into: its style, its script, and plotly.js, inlined once and compressed."""

from __future__ import annotations

import base64
import gzip
from functools import lru_cache


@lru_cache(maxsize=1)
def plotly_source() -> str:
    """Return plotly.js, compressed: it is most of the page."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), compresslevel=6, mtime=0)).decode()


STYLE = """
:root { color-scheme: light dark; --ink: #22262e; --dim: #626a78;
  --back: #f6f7f9; --card: #fff; --line: #dfe3e9; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #d7dae0; --dim: #949cab; --back: #14161a; --card: #1c1f25; --line: #31353e; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); line-height: 1.45;
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 20px 16px 60px; }
h1 { margin: 0; font-size: 26px; overflow-wrap: anywhere; } h2 { margin: 0 0 12px; font-size: 18px; }
h3 { font-size: 15px; margin: 18px 0 4px; } p, ul { margin: 4px 0 12px; color: var(--dim); }
ul { padding-left: 20px; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 16px;
  margin-top: 16px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; }
.tiles div { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 10px 14px; }
.tiles b { display: block; font-size: 21px; font-variant-numeric: tabular-nums; }
.tiles span, small { color: var(--dim); font-size: 12.5px; overflow-wrap: anywhere; }
td small { display: block; max-width: 26em; min-width: 11em; } summary { cursor: pointer; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr)); gap: 12px; }
.card, .plot { min-width: 0; } .key { white-space: nowrap; margin-left: 8px; }
.key i { display: inline-block; width: 9px; height: 9px; border-radius: 5px; margin-right: 4px; }
.scroll { overflow-x: auto; margin-bottom: 10px; }
table { border-collapse: collapse; min-width: 50%; }
th, td { text-align: left; padding: 6px 14px 6px 0; border-bottom: 1px solid var(--line); vertical-align: top;
  max-width: 34em; overflow-wrap: break-word; }
th { color: var(--dim); font-weight: 600; font-size: 13px; }
td.number { font-variant-numeric: tabular-nums; } td.number, td.short { white-space: nowrap; }
.pictures { display: flex; flex-wrap: wrap; gap: 10px; } figure { margin: 0; width: 84px; }
figure img { width: 84px; image-rendering: pixelated; border-radius: 4px; display: block; }
figcaption { color: var(--dim); font-size: 12px; overflow-wrap: anywhere; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 12.5px; }
"""

# Figures are drawn when they come near the screen, so that a long page opens at once.
SCRIPT = """
const dark = matchMedia('(prefers-color-scheme: dark)'), drawn = new Set();
const templates = JSON.parse(document.getElementById('templates').textContent);
const look = () => templates[dark.matches ? 'dark' : 'light'];
function draw(plot) {
  if (drawn.has(plot)) return;
  drawn.add(plot);
  const figure = JSON.parse(plot.nextElementSibling.textContent);
  figure.layout.template = look();
  Plotly.newPlot(plot, figure.data, figure.layout, {responsive: true, displayModeBar: false});
}
async function start() {
  const packed = atob(document.getElementById('plotly').textContent);
  const bytes = Uint8Array.from(packed, letter => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'));
  const script = document.createElement('script');
  script.nonce = window.pageNonce;
  script.textContent = await new Response(stream).text();
  document.head.append(script);
  const near = new IntersectionObserver(
    seen => seen.forEach(one => one.isIntersecting && draw(one.target)), {rootMargin: '600px'});
  document.querySelectorAll('.plot').forEach(plot => near.observe(plot));
  addEventListener('beforeprint', () => document.querySelectorAll('.plot').forEach(draw));
  dark.addEventListener('change', () => drawn.forEach(plot => Plotly.relayout(plot, {template: look()})));
}
start().catch(problem => document.querySelectorAll('.plot').forEach(
  plot => { plot.textContent = 'The figures need a newer browser: ' + problem; plot.style.minHeight = 0; }));
"""

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'nonce-{nonce}'; \
style-src 'unsafe-inline'; img-src data: blob:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head>
<body><main><header>{header}</header>
{body}
</main>
<script type="application/json" id="templates">{templates}</script>
<script type="application/octet-stream" id="plotly">{plotly}</script>
<script nonce="{nonce}">window.pageNonce = "{nonce}";{script}</script>
</body></html>
"""
