"""What every page is written into: its style, its script, and plotly.js, inlined once and compressed."""

from __future__ import annotations

import base64
import gzip
from functools import lru_cache


@lru_cache(maxsize=1)
def plotly_source() -> str:
    """Return plotly.js, compressed: it is most of the page."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), compresslevel=4, mtime=0)).decode()


STYLE = """
:root { color-scheme: light dark; --ink: #22262e; --dim: #5c6472; --link: #2a62a8;
  --back: #f6f7f9; --card: #fff; --line: #dfe3e9; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #d7dae0; --dim: #9aa2b1; --link: #86b4f0;
    --back: #14161a; --card: #1c1f25; --line: #31353e; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); line-height: 1.45;
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 1360px; margin: 0 auto; padding: 20px 16px 60px; }
h1 { margin: 0; font-size: 26px; overflow-wrap: anywhere; }
h2 { margin: 0 0 12px; font-size: 18px; overflow-wrap: anywhere; }
h3 { font-size: 15px; margin: 18px 0 4px; } p, ul { margin: 4px 0 12px; color: var(--dim); }
p, li { overflow-wrap: anywhere; } ul { padding-left: 20px; } a { color: var(--link); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 16px;
  margin-top: 16px; scroll-margin-top: 12px; min-width: 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; }
.tiles div { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 10px 14px; min-width: 0; }
.tiles b { display: block; font-size: 21px; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.tiles span, small { color: var(--dim); font-size: 12.5px; overflow-wrap: anywhere; }
td small { display: block; max-width: 26em; min-width: 11em; }
details { margin: 8px 0; } summary { cursor: pointer; overflow-wrap: anywhere; }
.story p, .story ul { color: inherit; max-width: 62em; } .story h3:first-of-type { margin-top: 0; }
.contents { margin: 14px 0 0; overflow-x: auto; white-space: nowrap; font-size: 13.5px; }
.contents a { margin-right: 14px; text-decoration: none; } .contents a:hover { text-decoration: underline; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr)); gap: 12px; }
.card, .plot { min-width: 0; } .key { white-space: nowrap; margin-left: 8px; }
.key i { display: inline-block; width: 9px; height: 9px; border-radius: 5px; margin-right: 4px; }
.scroll { overflow-x: auto; margin-bottom: 10px; }
table { border-collapse: collapse; min-width: 50%; }
th, td { text-align: left; padding: 6px 14px 6px 0; border-bottom: 1px solid var(--line); vertical-align: top;
  max-width: 34em; overflow-wrap: break-word; }
th { color: var(--dim); font-weight: 600; font-size: 13px; } td.long { min-width: min(20em, 72vw); }
td.number { font-variant-numeric: tabular-nums; } td.number, td.short { white-space: nowrap; }
.pictures { display: flex; flex-wrap: wrap; gap: 10px; margin: 6px 0 12px; }
figure { margin: 0; width: 84px; }
figure img { width: 84px; image-rendering: pixelated; border-radius: 4px; display: block; }
figcaption { color: var(--dim); font-size: 12px; overflow-wrap: anywhere; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 12.5px; }
@media (min-width: 1240px) {
  .page { display: grid; grid-template-columns: 172px minmax(0, 1fr); gap: 0 24px; }
  .contents { position: sticky; top: 16px; align-self: start; margin-top: 18px; max-height: 96vh;
    overflow: auto; white-space: normal; }
  .contents a { display: block; padding: 3px 0; margin: 0; }
}
@media print {
  :root { color-scheme: light; --ink: #000; --dim: #444; --back: #fff; --card: #fff; --line: #ccc; }
  main { padding: 0; max-width: none; } .page { display: block; } .contents { display: none; }
  section { border: 0; border-top: 1px solid var(--line); border-radius: 0; padding: 12px 0; }
  h2, h3, summary { break-after: avoid; } tr, figure, .card, .tiles div { break-inside: avoid; }
  .scroll { overflow: visible; } table { font-size: 10.5px; width: 100%; }
  th, td, td.short, td.number, td.long, td small { white-space: normal; min-width: 0;
    overflow-wrap: anywhere; padding-right: 8px; }
}
"""

# Figures are drawn when they come near the screen, so that a long page opens at once.
SCRIPT = """
const dark = matchMedia('(prefers-color-scheme: dark)'), drawn = new Set();
const templates = JSON.parse(document.getElementById('templates').textContent);
const plots = () => document.querySelectorAll('.plot');
const look = () => templates[dark.matches ? 'dark' : 'light'];
function draw(plot) {
  if (drawn.has(plot)) return;
  drawn.add(plot);
  const figure = JSON.parse(plot.nextElementSibling.textContent);
  figure.layout.template = look();
  Plotly.newPlot(plot, figure.data, figure.layout, {responsive: true, displayModeBar: false});
}
function toPaper() {  // A4 with usual margins is some 700 pixels wide
  document.querySelectorAll('details').forEach(one => one.open = true);
  plots().forEach(plot => {
    draw(plot);
    const beside = plot.closest('.grid')?.children.length > 1;
    Plotly.relayout(plot, {template: templates.light, width: beside ? 330 : 680});
  });
}
const fromPaper = () => drawn.forEach(
  plot => Plotly.relayout(plot, {template: look(), width: null, autosize: true}));
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
  plots().forEach(plot => near.observe(plot));
  addEventListener('beforeprint', toPaper);
  addEventListener('afterprint', fromPaper);
  dark.addEventListener('change', () => drawn.forEach(plot => Plotly.relayout(plot, {template: look()})));
}
start().catch(problem => plots().forEach(
  plot => { plot.textContent = 'The figures need a newer browser: ' + problem; plot.style.minHeight = 0; }));
"""

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'nonce-{nonce}'; \
style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{title}</title><style>{style}</style></head>
<body><main><header>{header}</header>
{body}
</main>
<noscript><p>The figures are drawn by JavaScript, which is switched off.</p></noscript>
<script type="application/json" id="templates">{templates}</script>
<script type="application/octet-stream" id="plotly">{plotly}</script>
<script nonce="{nonce}">window.pageNonce = "{nonce}";{script}</script>
</body></html>
"""
