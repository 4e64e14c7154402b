"""What must not become a memory: commands to the assistant that pose as facts, and secrets. Pure."""

from __future__ import annotations

import re

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
_SECRETS = re.compile(
    r"""-----BEGIN\s[A-Z ]*PRIVATE\sKEY|\b(?:sk|pk|rk)[-_](?:live|test|proj|ant)?[-_]?[A-Za-z0-9_-]{16,}|
        \bgh[pousr]_[A-Za-z0-9]{20,}|
    \bgithub_pat_\w{20,}|\bxox[abeprs]-[\w-]{10,}|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bAIza[\w-]{30,}|\bhf_[A-Za-z0-9]{20,}|\bglpat-[\w-]{15,}|
    \beyJ[\w-]{10,}\.eyJ[\w-]{5,}|\b[a-z][a-z0-9+]*://[^\s:/@]+:[^\s@/]+@|
    (?i:\b(?:passwords?|passwd|pwd|passphrase|passcode|pass\s?code|cvv|cvc|secret\s(?:key|token|code|phrase)|
    api[\s_-]?key|access[\s_-]?(?:key|token)|auth[\s_-]?token|bearer\stoken|private\skey|seed\sphrase|recovery\s(?:code|phrase)|
    one-?time\scode|otp)\b[^.\n]{0,40}?(?:\bis\b|\bare\b|[:=])\s*\S)|
    (?i:\bpin(?:\s(?:code|number))?\s*(?:is|:|=)\s*\d)|
    (?i:\b(?:ssn|social\ssecurity\snumber)\b)|\b\d{3}-\d{2}-\d{4}\b""",
    re.X,
)
_CARD = re.compile(r"(?<!\d)(?:\d[ -]?){12,18}\d(?!\d)")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b")


def is_instruction(text: str) -> bool:
    """Whether the text tells a model what to do rather than something about the user."""
    return bool(_COMMANDS.search(text))


def is_secret(text: str) -> bool:
    """Whether the text holds a password, a key, an account or a card number."""
    if _SECRETS.search(text) or _IBAN.search(text):
        return True
    return any(_passes_luhn(re.sub(r"\D", "", match.group())) for match in _CARD.finditer(text))


def _passes_luhn(digits: str) -> bool:
    doubled = [int(digit) * 2 for digit in digits[-2::-2]]
    return (
        sum(int(digit) for digit in digits[-1::-2]) + sum(n - 9 if n > 9 else n for n in doubled)
    ) % 10 == 0
