"""What the user says for themselves: a message in clauses, without code, quotations, pasted text, questions,
suppositions and what others said. Pure; English first, and rather deaf than gullible.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from memgraph_plugin.prompts import strip_memory_blocks

MAX_CHARACTERS = 20_000
"""Of one message; what comes after is not read by the rules (the verbatim turn is kept whole)."""

MAX_CLAUSE = 400
"""Characters of a clause; a longer one is no plain statement."""

_CODE = re.compile(r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`[^`\n]*`", re.DOTALL)
_QUOTED_LINE = re.compile(r" {4}|\t| {0,3}(?:>|\||\$ |#|//)")
_BULLET = re.compile(r"^ {0,3}(?:[-*•]|\d{1,2}[.)]) +")
_TAG = re.compile(r"<(\w{1,40})\b[^<>]{0,200}>.*?(?:</\1>|\Z)", re.DOTALL)
_QUOTATION = re.compile(
    r"[\"“„«](?P<inner>[^\"“”„«»]{1,2000})[\"”“»]|(?<!\w)['‘](?P<single>[^'’\n]{1,500})['’](?!\w)"
)
_SAYS_I = re.compile(r"\b(?:i|i'm|my|we|me)\b", re.I)

_PASTED = re.compile(
    r"""\b(?:translate|summari[sz]e|proofread|rewrite|rephrase|paraphrase|correct|fix|edit|improve|classify|analy[sz]e|
    review|parse|(?:this|the|following|an?|my)\s+(?:\w+\s+)?(?:email|mail|message|text|article|letter|paragraph|passage|
    essay|review|log|transcript|document|quote|lyrics|poem|story|conversation|chat|prompt|example|sentence|error)|
    reads|states|says|said|goes|writes|wrote|texted)
    \b[^.!?\n:]{0,80}:\s|
    \b(?:translate|summari[sz]e|proofread|rewrite|rephrase|paraphrase|correct|fix|edit|improve|review|explain|answer|
    reply\s+to|respond\s+to)\b[^.!?\n]{0,40}\b(?:this|that|it|following|below|e-?mail|text|letter|message)\b[^.!?\n]{0,40}[.!?]?\n|
    ^dear\s+[^\n]{1,60},|^(?:from|to|subject|date|sent|cc):\s[^\n]*\n(?:[\w-]+:\s[^\n]*\n?)+""",
    re.I | re.X | re.M,
)
_SIGNED = re.compile(
    r"""^(?:(?:kind|best|warm)\s+regards|regards|best(?:\s+wishes)?|(?:yours\s+)?sincerely|yours(?:\s+truly)?|cheers|
    (?:many\s+)?thanks|thank\s+you)\s?[,!]?\n\w+(?:\s\w+){0,3}[.!]?\Z""",
    re.I | re.X | re.M,
)
_OFF_THE_RECORD = re.compile(
    r"""(?:^\ {0,3}|[.!?]\s)(?:please\s+)?(?:don'?t|do\s+not|never)\s+
    (?:remember|save|store|record|memori[sz]e|keep)\s+
    (?:(?:any\s+of\s+)?(?:this|that|it|what\s+i(?:\s+am|'m)?\s+\w+))\s*(?:$|[,.:;!?–—-]|\b(?:but|please|ok(?:ay)?)\b)|
    \boff\s+the\s+record\b""",
    re.I | re.X | re.M,
)
_MADE_UP = re.compile(
    r"""\b(?:role-?\s?play|pretend|imagine|suppose|supposing|hypothetically|let'?s\s+say|let\s+us\s+say|what\s+if|
    act\s+as|you\s+are\s+now|in\s+(?:my|the|this|a)\s+(?:story|novel|game|dream|book|film|movie|song)|my\s+character|
    (?:write|draft|compose|generate|make\s+up|tell)\s+(?:me\s+|us\s+)?(?:an?|the|some|my)\s+(?:\w+\s+){0,3}
    (?:story|poem|song|email|e-mail|letter|essay|bio|biography|dialogue|script|speech|joke|tweet|post|text|paragraph))\b""",
    re.I | re.X,
)
_SUPPOSED = re.compile(
    r"""\b(?:if\s+(?:i|we|my|only)|unless|i\s+wish|as\s+if|as\s+though|would\s+have|would've|might|maybe|perhaps|
    possibly|i\s+guess|not\s+sure|i\s+doubt|i\s+dreamt|i\s+dreamed|whether|as\s+an?\s+(?:ai|llm|assistant|language\s+model)|joke|kidding|just\s+joking|/s|(?:broke|split)\s+up)\b""",
    re.I | re.X,
)
_REPORTED = re.compile(
    r"""^(?:(?:and|but|so|then)\s+)?(?:(?i:she|he|they|you|it|people|someone|somebody|everyone|everybody)|(?i:my|the|a|our|his|her|
    their)\s+(?:[\w'’-]+\s+){1,3}?|[A-Z][\w'’-]+\s+(?:[A-Z][\w'’-]+\s+)?)\s*(?:just\s+|always\s+|once\s+|also\s+)?
    (?:said|says|say|told|tells|thinks|think|thought|claims|claimed|asked|asks|believes|wrote|writes|replied|insists|
    (?:was|were|is)\s+like)\b|\baccording\s+to\b""",
    re.X,
)
_QUESTION = re.compile(
    r"""^(?:who|whom|whose|what|when|where|why|how|which|do|does|did|is|are|am|was|were|can|could|would|will|should|
    shall|have|has|had|may|isn't|aren't|don't\s+you|doesn't|didn't|won't|any\s+idea|tell\s+me|guess|explain|show\s+me)\b""",
    re.I | re.X,
)
_ASKED_TO_REMEMBER = re.compile(
    r"^(?:please\s+)?(?:can|could|will|would)\s+you\s+(?:please\s+)?(?=(?:remember|note|keep\s+in\s+mind|forget|delete|remove|"
    r"erase)\b)",
    re.I,
)
_ABBREVIATION = re.compile(
    r"\b(Dr|Mr|Mrs|Ms|Prof|St|Jr|Sr|Inc|Ltd|Co|vs|etc|approx|No|e\.g|i\.e|a\.m|p\.m|U\.S|U\.K)\.(?=\s)"
)
_STOP = re.compile(
    r"(?<=[.!?…])[\"'”’)]*\s+|\s*[\n;]+\s*|(?<=[a-z])!+\s*|\s+[–—-]\s+"
    r"|\s*[\u2600-\u27bf\ufe0f\u200d\U0001f000-\U0001faff]+\s*"
)
_JOINT = re.compile(
    r"""\s*,?\s+(?:and|but|so|although|though|because|since|while|plus)\s+(?=(?:i|i'm|i’m|i've|i’ve|i'll|i'd|my|we|we're)\b)|
    \s*,\s*(?=(?:i|i'm|i’m|i've|i’ve|my|we|please\s+(?:remember|forget))\b)|
    \s+(?=(?:do\s+not|don['’]?t)\s+(?:let\s+me\s+)?forget\b)|
    \s*,\s*(?=(?:he|she|they|it|its|his|her|their)\b(?:['’]|\s+\w))|
    \s*,\s*(?:and\s+|but\s+|so\s+)?(?=(?:what|who|where|how|can|could|do|did|is|are|would|will|should)\b[^,]*\?)""",
    re.I | re.X,
)
_OPENER = re.compile(
    r"""^(?:(?:well|oh|ah|ok|okay|so|also|and|but|yes|yeah|yep|yup|sure|hi|hello|hey|thanks|thank\s+you|great|wow|haha|lol|
    anyway|by\s+the\s+way|btw|fyi|just\s+so\s+you\s+know|for\s+the\s+record|to\s+be\s+honest|honestly|basically|
    as\s+you\s+know|of\s+course|good\s+(?:morning|afternoon|evening)|i\s+think(?:\s+that)?|i\s+should\s+mention(?:\s+that)?|
    you\s+should\s+know(?:\s+that)?|did\s+you\s+know(?:\s+that)?|one\s+more\s+thing)(?:\s+there)?\b[\s,.!:–-]*)+""",
    re.I | re.X,
)
_DOT = "․"  # one dot leader: a full stop that ends no sentence


def own_clauses(text: str) -> Iterator[str]:
    """The clauses of a message that can be taken for statements or wishes of who wrote it, in order."""
    if is_off_the_record(text):
        return
    for sentence in _sentences(own_words(text)):
        if _MADE_UP.search(sentence):
            return
        if _SUPPOSED.search(sentence):
            continue
        for clause in _JOINT.split(sentence):
            own = _OPENER.sub("", clause.strip()) or clause.strip()
            own = _ASKED_TO_REMEMBER.sub("", own)
            asked = own != clause.strip() and own.lower().startswith(("remember", "note", "keep", "forget"))
            if _REPORTED.search(own):
                break
            if len(own) > MAX_CLAUSE:
                continue
            if own and not _QUESTION.search(own) and (asked or not own.endswith("?")):
                yield own.rstrip(".!?… ").replace(_DOT, ".")


def own_sentences(text: str) -> Iterator[str]:
    """The sentences of `own_words`, questions and wishes among them."""
    return (sentence.replace(_DOT, ".") for sentence in _sentences(own_words(text)))


def is_off_the_record(text: str) -> bool:
    """Whether the message itself asks not to be remembered."""
    return bool(_OFF_THE_RECORD.search(text.replace("’", "'")))


def own_words(text: str) -> str:
    """A message without what is somebody else's in it: code, quotations, pasted text, our own blocks."""
    text = strip_memory_blocks(text)[:MAX_CHARACTERS].replace("’", "'")
    text = _TAG.sub(" ", _CODE.sub(" ", text))
    lines = [
        _BULLET.sub("", line) for line in text.split("\n") if line.strip() and not _QUOTED_LINE.match(line)
    ]
    text = "\n".join(" ".join(line.split()) for line in lines)
    if _SIGNED.search(text):  # somebody's letter
        return ""
    pasted = _PASTED.search(text)
    if pasted:
        text = text[: pasted.start()]
    return _QUOTATION.sub(_unquote, text)


def _unquote(match: re.Match[str]) -> str:
    """A short title loses its marks; what looks like somebody's speech is left out."""
    inner = match["inner"] or match["single"]
    return " … " if _SAYS_I.search(inner) or len(inner.split()) > 6 else inner


def _sentences(text: str) -> Iterator[str]:
    guarded = _ABBREVIATION.sub(lambda match: match[1] + _DOT, text)
    for sentence in _STOP.split(guarded):
        if sentence and sentence.strip():
            yield sentence.strip()
