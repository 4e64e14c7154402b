"""Whether a memory tells a fact: decided by its words, never by a model.

A memory tells a value if the value stands in it, word by word, in any case and without an article; if it
says so of the user (its subject, where it names one, is the user, and the name of the one whom the value
belongs to is not in it); and if it does not deny it (no "no longer", "never", "not", "former" and the
like).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date

from memgraph_plugin.memalpha import rewards
from memgraph_plugin.memalpha.words import normalise

_ARTICLE = re.compile(r"^(?:an?|the) ")
_DENIED = re.compile(
    r"\b(?:no longer|not|never|no|former(?:ly)?|ex|previous(?:ly)?|used to|once|gave up|given up|stopped|"
    r"quit|dropped|ended|until)\b|n['’]t\b",
    re.I,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A memory, whoever keeps it. `subject` is "" where only its text tells; `since` is its date."""

    key: str
    text: str
    subject: str = ""
    since: date | None = None


def contains(text: str, value: str) -> bool:
    """Whether the value stands in the text, word by word."""
    return rewards.contains(text, _ARTICLE.sub("", normalise(value)))


def tells(item: Item, value: str, *, belongs_to: str = "") -> bool:
    """Whether the memory says that this value is the user's, now."""
    return contains(item.text, value) and is_users(item, belongs_to) and not is_denied(item)


def denies(item: Item, value: str) -> bool:
    """Whether the memory says that this value is not the user's, or no longer."""
    return contains(item.text, value) and is_users(item) and is_denied(item)


def is_denied(item: Item) -> bool:
    """Whether it says that something is not so, or no longer."""
    return bool(_DENIED.search(item.text))


def is_users(item: Item, belongs_to: str = "") -> bool:
    """Whether it is about the user, as far as it says: not about the one whom a value belongs to."""
    if item.subject and normalise(item.subject) not in ("user", "the user", "user partner", "user dog"):
        return False
    return not (belongs_to and contains(item.text, belongs_to))


def is_dated(item: Item, day: date) -> bool:
    """Whether it has the day: as its date, or written out in its text."""
    written = (day.isoformat(), f"{day.day} {day:%B}", f"{day:%B} {day.day}")
    return item.since == day or any(contains(item.text, each) for each in written)
