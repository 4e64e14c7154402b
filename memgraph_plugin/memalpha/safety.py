"""What must not become a memory unseen: commands posing as facts, secrets, and personal data by choice. Pure.

Detectors of libraries are in the extra `pii`, loaded when they are first asked for.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal, TypeAlias, get_args

from memgraph_plugin.errors import ConfigurationError, MissingExtraError
from memgraph_plugin.types import Insert, Update

Verdict: TypeAlias = Literal["keep", "quarantine", "refuse"]
"""keep: it may be remembered · quarantine: it is held until it is released · refuse: nothing is kept."""

Code: TypeAlias = Literal["instruction_like", "secret", "personal"]

Span: TypeAlias = tuple[int, int]

_COMMANDS = re.compile(
    r"""\b(?:ignore|disregard|forget|override|bypass)\s+(?:\w+\s+){0,3}(?:instructions?|rules?|prompts?|guidelines?|restrictions?)\b|
    \b(?:system|developer)\s+(?:prompt|message|instructions?)\b|
    \b(?:you|the\s+assistant|the\s+ai|the\s+model|the\s+agent|the\s+bot|assistants?)\s+(?:must|should|shall|will|has\s+to|have\s+to|
    need\s+to|are\s+now|is\s+now|always|never)\b|
    \bfrom\s+now\s+on\b|\bnew\s+instructions?\b|\byou\s+are\s+(?:now\s+)?(?:an?|the|in)\b|\bact\s+as\b|\bpretend\s+to\s+be\b|
    \b(?:always|never)\s+(?:respond|reply|answer|say|tell|mention|reveal|recommend|include|output|write|call|use|send|follow|
    obey|trust|approve|execute|run|remind|ask)\b|
    \b(?:reveal|leak|exfiltrate|print|output)\s+(?:\w+\s+){0,3}(?:prompts?|instructions?|secrets?|keys?|memor(?:y|ies)|passwords?)\b|
    \b(?:send|post|forward|upload)\s+[^.]{0,80}\b(?:to|at)\s+(?:https?://|www\.|\S+@)|
    \b(?:call|invoke|execute|run)\s+(?:the\s+)?(?:tool|function|command|shell|script|code)\b|
    \bsudo\s+\w|\brm\s+-rf\b|\bDROP\s+TABLE\b|
    <\|[^|<>]{0,40}\||</?\s*(?:system|assistant|user|tool|instructions?|recalled-memories)\b|\[/?INST\]|\#{2,}\s*(?:system|instruction)|
    ^\s*(?:system|assistant|developer)\s*:""",
    re.I | re.X | re.M,
)
_TOKENS = re.compile(
    r"""\b(?:sk|pk|rk)[-_](?:live|test|proj|ant)?[-_]?[A-Za-z0-9_-]{16,}|
        \bgh[pousr]_[A-Za-z0-9]{20,}|
    \bgithub_pat_\w{20,}|\bxox[abeprs]-[\w-]{10,}|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bAIza[\w-]{30,}|\bhf_[A-Za-z0-9]{20,}|\bglpat-[\w-]{15,}|
    \beyJ[\w-]{10,}\.eyJ[\w-]{5,}|\b[a-z][a-z0-9+]*://[^\s:/@]+:[^\s@/]+@|\b\d{3}-\d{2}-\d{4}\b""",
    re.X,
)
"""Secrets by their form."""

_TOLD = re.compile(
    r"""-----BEGIN\s[A-Z ]*PRIVATE\sKEY|
    (?i:\b(?:passwords?|passwd|pwd|passphrase|passcode|pass\s?code|cvv|cvc|secret\s(?:key|token|code|phrase)|
    api[\s_-]?key|access[\s_-]?(?:key|token)|auth[\s_-]?token|bearer\stoken|private\skey|seed\sphrase|recovery\s(?:code|phrase)|
    one-?time\scode|otp)\b[^.\n]{0,40}?(?:\bis\b|\bare\b|[:=])\s*\S)|
    (?i:\bpin(?:\s(?:code|number))?\s*(?:is|:|=)\s*\d)|
    (?i:\b(?:ssn|social\ssecurity\snumber)\b)""",
    re.X,
)
"""Secrets by the words around them, which do not say where they begin and end."""

_CARD = re.compile(r"(?<!\d)(?:\d[ -]?){12,18}\d(?!\d)")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")


_OVERRIDE = re.compile(
    r"\b(?:ignore|disregard|override|bypass)\s+(?:\w+\s+){0,3}(?:instructions?|rules?|guidelines?|restrictions?)\b",
    re.I,
)
"""What nobody says who only wants something forgotten."""

_EMAIL = re.compile(r"\b[\w.%+-]+@(?:[\w-]+\.)+[^\W\d_]{2,}\b")
_NUMBER = re.compile(
    r"(?<!\w)(?:(?:[A-Z]{2} )?\d+(?: \d+)+(?: ?[A-Z])?|(?=\S*\d{2})[A-Za-z0-9]+(?:[./-][A-Za-z0-9]+)*)(?!\w)"
)
"""What may be a number of identity: groups of digits, or letters and digits in one piece."""

_IDENTITIES = (  # noqa: SIM905 - it would be a page long
    "be.nn br.cpf ca.sin ch.ssn cn.ric de.idnr dk.cpr es.dni es.nie fi.hetu fr.nir gb.nhs ie.pps "
    "in_.aadhaar it.codicefiscale nl.bsn no.fodselsnummer pl.pesel pt.cc se.personnummer us.ssn"
).split()
"""Numbers of identity whose form or check digits python-stdnum knows."""

_CLASSES: dict[str, Code] = {
    "secrets": "secret",
    "card": "secret",
    "iban": "secret",
    "instructions": "instruction_like",
    "email": "personal",
    "phone": "personal",
    "identity": "personal",
}
"""The classes and their codes, in the order in which codes are named."""

_PATTERNS = {"instructions": [_COMMANDS], "secrets": [_TOKENS, _TOLD], "iban": [_IBAN], "email": [_EMAIL]}

_SECRET = [name for name, code in _CLASSES.items() if code == "secret"]

MASK = "[secret]"
"""What stands in quarantine where a secret stood."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """What is wrong with a text, by what code, and what is to be done with it."""

    verdict: Verdict
    code: Code
    found: tuple[str, ...]

    @property
    def detail(self) -> str:
        """What was found, by class; for a receipt."""
        return ", ".join(self.found)


@dataclass(frozen=True, slots=True)
class Safety:
    """What is to be done with what a memory would hold, class by class; the strictest counts.

    By default, instructions and secrets (passwords, keys, card and account numbers) are quarantined.
    Addresses, phone numbers and numbers of identity are kept: people tell their assistant their number on
    purpose. A class that is kept is not looked for. What goes to quarantine has its secrets masked, or it
    would be the one place where they are all together; personal data is held as it is, or it could not be
    released.

    Args:
        instructions: texts that tell a model what to do.
        secrets: passwords, keys and tokens, by their form or by what is said of them.
        card: numbers with the check digit of a card.
        iban: account numbers.
        email: addresses of mail.
        phone: phone numbers, by the package `phonenumbers`; those without a "+" only in `region`.
        identity: numbers of identity of some twenty countries, by the package `python-stdnum`.
        thorough: look for secrets by the forms that the package `detect-secrets` knows, too.
        region: where numbers without a country's code are called from, as "NO".

    Raises:
        MissingExtraError: a class that is not kept, or `thorough`, needs the extra `pii`.
        ConfigurationError: there is no such verdict.
    """

    instructions: Verdict = "quarantine"
    secrets: Verdict = "quarantine"
    card: Verdict = "quarantine"
    iban: Verdict = "quarantine"
    email: Verdict = "keep"
    phone: Verdict = "keep"
    identity: Verdict = "keep"
    thorough: bool = False
    region: str | None = None

    def __post_init__(self) -> None:
        for name in _CLASSES:
            if getattr(self, name) not in get_args(Verdict):
                raise ConfigurationError(f"{name} is one of {', '.join(get_args(Verdict))}.")
        needed = {"phonenumbers": self.phone != "keep", "stdnum": self.identity != "keep"}
        for package, wanted in (needed | {"detect_secrets": self.thorough}).items():
            if wanted and find_spec(package) is None:
                raise MissingExtraError("pii", "Looking for personal data")

    def judge(self, operation: Insert | Update) -> Ruling | None:
        """What is wrong with what an operation would write; None where nothing is."""
        said = _said(operation)
        wrong = [name for name in _CLASSES if any(any(self._find(name, text)) for text in said)]
        if not wrong:
            return None
        strictest = max((getattr(self, name) for name in wrong), key=get_args(Verdict).index)
        decisive = next(name for name in wrong if getattr(self, name) == strictest)
        return Ruling(strictest, _CLASSES[decisive], tuple(wrong))

    def judge_request(self, said: Iterable[str]) -> Ruling | None:
        """What is wrong with turns that ask for a deletion; None where one of them is harmless."""
        if self.instructions == "keep" or not all(_OVERRIDE.search(_plain(text)) for text in said):
            return None
        return Ruling(self.instructions, "instruction_like", ("instructions",))

    def reason(self, said: str) -> str:
        """A reason as it may be logged: nothing of it, where it has what a memory may not have."""
        plain = _plain(said)
        return "" if any(any(self._find(name, plain)) for name in _CLASSES) else said

    def masked(self, operation: Insert | Update) -> Insert | Update:
        """The operation without the secrets in it. Where there were any, its value and reason go, too.

        A secret that only words tell of may stand anywhere beside them: of such a text, nothing is left.
        """
        said = [*_said(operation), operation.reason]
        if not any(any(self._find(name, text)) for name in _SECRET for text in said):
            return operation
        told = self.secrets != "keep" and any(map(_TOLD.search, said))
        plain = _plain(operation.text)
        spans = (span for name in _SECRET for span in self._find(name, plain))
        text = MASK if told else _mask(plain, spans)
        if isinstance(operation, Insert):
            return replace(operation, text=text, value={}, reason="")
        return replace(operation, text=text, value=None, reason="")

    def _find(self, name: str, text: str) -> Iterator[Span]:
        """Where in a text something of a class is."""
        if getattr(self, name) == "keep":
            return
        forms = _known_forms() if name == "secrets" and self.thorough else []
        patterns = [*_PATTERNS.get(name, ()), *forms]
        yield from (match.span() for pattern in patterns for match in pattern.finditer(text))
        if name == "card":
            yield from _luhn(text)
        elif name == "phone":
            yield from _phones(text, self.region)
        elif name == "identity":
            yield from _identities(text)


def _luhn(text: str) -> Iterator[Span]:
    for match in _CARD.finditer(text):
        digits = re.sub(r"\D", "", match.group())
        doubled = [int(digit) * 2 for digit in digits[-2::-2]]
        if (sum(map(int, digits[-1::-2])) + sum(n - 9 if n > 9 else n for n in doubled)) % 10 == 0:
            yield match.span()


def _phones(text: str, region: str | None) -> Iterator[Span]:
    matcher: Any = import_module("phonenumbers").PhoneNumberMatcher(text, region)
    yield from ((match.start, match.end) for match in matcher)


def _identities(text: str) -> Iterator[Span]:
    known = [import_module(f"stdnum.{name}") for name in _IDENTITIES]
    for match in _NUMBER.finditer(text):
        said = match.group()  # none is shorter, though leading zeros may be left out
        if len(said) >= 7 and any(each.is_valid(said) for each in known):
            yield match.span()


@cache
def _known_forms() -> list[re.Pattern[str]]:
    """What detect-secrets knows by form alone: by entropy, it finds too much in talk."""
    detector: Any = import_module("detect_secrets.plugins.base").RegexBasedDetector
    known: Any = import_module("detect_secrets.core.plugins.util").get_mapping_from_secret_type_to_class()
    plugins = [each for each in known.values() if issubclass(each, detector)]
    return [form for each in plugins if each.__name__ != "IPPublicDetector" for form in each.denylist]


def _mask(text: str, spans: Iterable[Span]) -> str:
    """The text with a mask in place of each span, which reaches as far as there is no space."""
    parts, at = [], 0
    for start, end in sorted(spans):
        begin = max(text.rfind(" ", 0, start) + 1, at)
        if end > at:
            stop = text.find(" ", end)
            parts += [text[at:begin], MASK]
            at = len(text) if stop < 0 else stop
    return "".join([*parts, text[at:]])


def _said(operation: Insert | Update) -> list[str]:
    """Every text that an operation would write, as it reads; a value's parts with what they are of."""
    value = operation.value or {}
    attribute, held = value.get("attribute", ""), value.get("value", "")
    return [_plain(text) for text in (operation.text, f"{attribute}: {held}", *_strings(value))]


def _strings(value: Any, name: str = "") -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _strings(part, str(key))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _strings(part, name)
    else:
        yield from (str(value), f"{name}: {value}")


def _plain(text: str) -> str:
    """The text with letters of unusual width as they read, and without those that nobody sees."""
    usual = unicodedata.normalize("NFKC", text)
    return "".join(letter for letter in usual if unicodedata.category(letter) != "Cf")


SAFETY = Safety()

UNCHECKED = Safety(instructions="keep", secrets="keep", card="keep", iban="keep")
"""For what has been looked at before."""
