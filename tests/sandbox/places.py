"""Places of a document for generated text, between `<!-- name -->` and `<!-- end of name -->`."""

from __future__ import annotations

import re
from collections.abc import Sequence


def replaced(text: str, place: str, body: str, document: str) -> str:
    """Return the text with `body` in a place; stop where the document has no such place.

    Args:
        text: the document.
        place: the name in both marks.
        body: the new content, without blank lines around it.
        document: the document's name, for the message.
    """
    require(text, [place], document)
    return re.sub(_marks(place), lambda _: f"\n{body}\n\n", text, flags=re.DOTALL)


def require(text: str, places: Sequence[str], document: str) -> None:
    """Stop, before a long run, if a document lacks one of its places or has it twice."""
    for place in places:
        found = len(re.findall(_marks(place), text, flags=re.DOTALL))
        if found != 1:
            raise SystemExit(f"{document}: found {found} places for {place}, expected one")


def _marks(place: str) -> str:
    return rf"(?<=<!-- {re.escape(place)} -->\n).*?(?=<!-- end of {re.escape(place)} -->)"
