"""Names and values as MLflow takes them.

Names of parameters, metrics and tags may have letters, digits, spaces and `_ - . / :` in them, up to 250
characters, and must stay what they are when read as a path. Any other character is written as its code
between colons: `lr<1` becomes `lr:3c:1`, and a colon itself `:3a:`, so that no two names become one.
"""

from __future__ import annotations

import json
import posixpath
import re
from hashlib import sha256
from typing import Any

from orchestrator.results.schema import text

LONGEST_NAME, LONGEST_PARAM, LONGEST_TAG, LONGEST_EXPERIMENT = 250, 6000, 5000, 500
_CUT = " … "
_OTHER = re.compile(r"[^\w\-./ ]")


def name_of(name: str) -> str:
    """Return a name that MLflow takes: another one for each other name."""
    written = _OTHER.sub(lambda found: _code(found[0]), text(name))
    if written in ("", ".") or posixpath.normpath(written) != written or written.startswith(("/", "..")):
        # An empty part, or one of dots, or an end in a slash: as a path it would be another name.
        written = "/".join(_part(part) for part in written.split("/"))
    if len(written) > LONGEST_NAME:
        digest = sha256(written.encode()).hexdigest()[:16]
        written = f"{written[: LONGEST_NAME - 17].rstrip('/')}-{digest}"
    return written


def param_of(value: Any) -> str:
    """Return a parameter's value as text: a string as it is, unless it could be taken for another value."""
    return _shortened(_plain(value), LONGEST_PARAM, LONGEST_PARAM // 2)


def tag_of(value: Any) -> str:
    """Return a tag's value as text; of a long one the end, because that of a traceback says the most."""
    return _shortened(text(value), LONGEST_TAG, 0)


def _code(character: str) -> str:
    return f":{ord(character):x}:"


def _part(part: str) -> str:
    """Return one part of a path, which is nothing special in a path."""
    return "".join(_code(each) for each in part) if part in (".", "..") else part or "::"


def _plain(value: Any) -> str:
    if not isinstance(value, str):
        return text(value)
    try:
        json.loads(value)
    except ValueError:
        return text(value) if value.strip() == value and value else json.dumps(value, ensure_ascii=False)
    return text(json.dumps(value, ensure_ascii=False))


def _shortened(words: str, most: int, head: int) -> str:
    if len(words) <= most:
        return words
    return words[:head] + _CUT + words[len(words) - (most - head - len(_CUT)) :]
