"""What mkdocs is told besides mkdocs.yml: links out of the site, and no page that asks another host."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

# [text](../path): a file of the repository that is no page of the site.
OUTSIDE = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\./[^)#]+)(?:#[^)]*)?\)")
# What a browser loads by itself, unlike a link that somebody follows.
LOADED = re.compile(
    r"""<(?:script|img|iframe|source|video|audio)\b[^>]*\bsrc=["']?((?:https?:)?//[^"'\s>]+)"""
    r"""|<link\b(?=[^>]*\brel=["']?(?:stylesheet|preconnect|preload|icon|manifest|dns-prefetch))"""
    r"""[^>]*\bhref=["']?((?:https?:)?//[^"'\s>]+)"""
)


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Name the files of the repository that a page points at, which the site does not hold.

    Raises:
        PluginError: there is no such file.
    """
    folder = Path(config["docs_dir"])

    def named(link: re.Match[str]) -> str:
        text, path = link[1], (folder / link[2]).resolve()
        if not path.exists():
            raise PluginError(f"{page.file.src_uri}: there is no {link[2]}")
        place = path.relative_to(folder.parent.resolve()).as_posix()
        return f"`{place}`" if text.strip("`") == place else f"{text} (`{place}`)"

    return OUTSIDE.sub(named, markdown)


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Refuse a page that would load something from another host.

    Raises:
        PluginError: it does.
    """
    if loaded := LOADED.search(output):
        raise PluginError(f"{page.file.src_uri}: would load {loaded[1] or loaded[2]}")
    return output
