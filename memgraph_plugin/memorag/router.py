"""Whether a question needs clues, and of which scenario, by its words and what was found: no model is asked.

MemoRAG drafts clues for every question. Most need none, and a small model's clues then cost time and crowd
out what was found. The words are English, Chinese and Japanese; in another language the hits alone decide.
Pure; no I/O.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from memgraph_plugin.memorag.clues import Scenario
from memgraph_plugin.types import Hit

GOOD = 0.4
"""The cosine from which the best hit counts as good. With MiniLM, HotpotQA's questions find a passage of at
least 0.44 among 400, and sentences about nothing that is stored one of 0.33 at most."""


@dataclass(frozen=True, slots=True)
class Route:
    """The scenario, None where no clues are needed, and why, in plain words."""

    scenario: Scenario | None
    why: str

    def __str__(self) -> str:
        return f"{self.scenario or 'plain'}: {self.why}"


def route(query: str, hits: Sequence[Hit], *, turns: int = 0, embedded: bool = True) -> Route:
    """Where a question goes. `hits` is what it found as it stands, `turns` how many were said before it.

    `embedded` is False where it was searched for by its words alone: who finds nothing may then need others.
    """
    if not hits and embedded:
        return Route(None, "nothing is remembered that could be found")
    if not _ASKS.search(query):
        return Route(None, "it asks nothing")
    if cue := _pointing(query, turns):
        return Route("conversation", f"it points at something said elsewhere ({cue!r})")
    for scenario, why, pattern in _CUES:
        if match := pattern.search(query):
            return Route(scenario, f"{why} ({match.group().strip()!r})")
    if len(re.findall("[?？]", query)) > 1:
        return Route("multi_hop", "it asks several things")
    return _by_hits(hits)


def _by_hits(hits: Sequence[Hit]) -> Route:
    cosines = [hit.cosine for hit in hits if hit.cosine is not None]
    if not cosines:
        if any(hit.bm25 for hit in hits):
            return Route(None, "a direct question, and its words were found")
        return Route("vague", "none of its words were found")
    best = max(cosines)
    if best >= GOOD:
        return Route(None, f"a direct question, and the best hit is near (cosine {best:.2f})")
    return Route("vague", f"the best hit is far (cosine {best:.2f})")


def _pointing(query: str, turns: int) -> str:
    """The word that stands for something outside of the message; "" where there is none."""
    for pattern in (_PERSONS, *((_THINGS, _GOES_ON, _UNNAMED) if turns else ())):
        for match in pattern.finditer(query):
            if pattern in (_GOES_ON, _UNNAMED) or not _NAMED.search(query[: match.start()]):
                return str(match.group().strip())
    return ""


_ASKS = re.compile(
    r"""[?？]
    | ^\W*(?:(?:please|hey|hi|ok|okay|so|and|but|can\ you|could\ you|would\ you)\W+)*
      (?:who|whom|whose|what|what's|which|when|where|why|how|is|are|was|were|do|does|did|has|have|had|can|could|will
      |would|should|may|list|name|tell|show|find|give|summari[sz]e|recap|remind|recommend|suggest|describe|explain
      |compare|count|enumerate|any|help)\b
    | 吗|呢|什么|谁|哪|怎么|怎样|为何|多少|几[个次年天]|是否|请|列出|列举|总结|概括|推荐|告诉我|介绍
    | か[。．\s]*$|誰|どこ|いつ|なぜ|どう|どの|どれ|何[がをはにで時年月日回度人個]
    | いくつ|教えて|まとめて|要約|おすすめ|挙げて""",
    re.IGNORECASE | re.VERBOSE,
)

_PERSONS = re.compile(
    r"\b(?:he|she|him|hers?|his|they|them|theirs?)\b|(?<![其吉])[他她]们?|彼女?[はがをにのと]",
    re.IGNORECASE,
)
_THINGS = re.compile(
    r"""(?<!what\ time\ is\ )\b(?:its?|then)\b
    | (?<!is\ )(?<!are\ )(?<!was\ )(?<!were\ )\bthere\b(?!\ (?:is|are|was|were)\b)
    | \b(?:this|that|these|those)\b
      (?=\s*(?:[?.!,]|$)|\s+(?:ones?|is|was|were|are|guy|man|woman|person|place|thing|time|day|book|film)\b)
    | \bthe\ (?:other|first|second|last|same|latter|former)\ one\b
    | (?<![其吉])它|那[个件次位家里天时]|这[个件次位家]|前者|后者
    | それ|あれ|これ|その|あの|この|そこ|あそこ""",
    re.IGNORECASE | re.VERBOSE,
)
_GOES_ON = re.compile(
    r"""^\W*(?:and|but|so|or|also)\b | ^\W*(?:what|how)\ about\b
    | ^\W*(?:why|when|where|who|how|which\ one|what\ else)\W*$
    | 呢[？?]?\s*$ | ^(?:那|还有|为什么[？?]?$) | ^(?:じゃあ|では|それで|なぜ[？?]?$) | は[？?]\s*$""",
    re.IGNORECASE | re.VERBOSE,
)
_UNNAMED = re.compile(r"^(?:What|Who|When|Where|Why|How)(?: [a-z-]+){1,4} the(?: [a-z-]+){1,3}(?=\W*$)")
"""A short question about "the" so-and-so that names nothing."""
_NAMED = re.compile(r"(?<=\s)[A-Z][a-z]+|\b(?:my|our|your)\s+\w+|我的|私の")
"""Whom a pronoun later in the same message may stand for."""

_AGGREGATION = re.compile(
    r"""\b(?:list|enumerate|summari[sz]e|summary|overview|recap|everything|altogether|in\ total|throughout
    |how\ (?:many|often)|(?:main|key)\ (?:points|themes|ideas|topics))\b
    | (?<!at\ )(?<!after\ )\ball\ (?!right|day|night|week|along|over)(?:of\ )?\w+
    | \b(?:every|each)\ (?!other\b|one\ of\ us\b)\w+
    | 所有|全部|列出|列举|总结|概括|概述|归纳|一共|总共|多少[次个种]|几[次个种]|哪些|每一?[次个]
    | すべて|全て|全部|一覧|まとめ|要約|列挙|挙げて|何[回度個人種]|いくつ|それぞれ""",
    re.IGNORECASE | re.VERBOSE,
)
_PERSONAL = re.compile(
    r"""\b(?:recommend|suggest|advise|advice|should\ i|for\ me|suits?\ me)\b
    | \bmy\ (?:taste|preferences?|style|kind\ of)\b
    | \b(?:would|will|might|may|do\ you\ think)\ i\ (?:\w+\ )?(?:like|enjoy|love|hate|prefer|mind|want)\b
    | \bwhat\ (?:can|could|shall|do)\ i\ (?:eat|cook|read|watch|wear|buy|do|give|get|order|visit|make)\b
    | 推荐|建议|适合我|合我|我(?:该|应该|会喜欢|会不会喜欢)
    | おすすめ|お勧め|オススメ|お薦め|提案|私に(?:合|ぴったり)|(?:した|すれ)(?:ら|ば)いい|べき""",
    re.IGNORECASE | re.VERBOSE,
)
_ROLES = r"""
    author|writer|performer|singer|musician|director|producer|founder|creator|composer|designer|inventor
    |owner|actor|actress|star|player|winner|person|man|woman|band|group|team|company|studio|film|book
    |novel|song|album|series|city|town|country|state|county|place|birthplace|school|university|husband
    |wife|spouse|partner|father|mother|brother|sister|son|daughter|uncle|aunt|cousin|grandfather
    |grandmother|boss|teacher|doctor|neighbou?r|friend"""
"""Whom or what a question names by what they are to something else, rather than by their name."""

_MULTI_HOP = re.compile(
    rf"""\bwhose\b
    | (?<!who\ is\ )(?<!who\ was\ )(?<!what\ is\ )(?<!what\ was\ )(?<!which\ is\ )
      \bthe\ (?:\w+\ )?(?:{_ROLES})\ (?:of|from|who|whom|that|which|where|in|for|\w+ing)\b
    | (?<!^)(?<!who\ is\ )(?<!who\ was\ )\b\w+['’]s?\ (?:\w+\ )?(?:{_ROLES})\b(?!\W*$)
    | \bin\ common\b
    | \b(?:of|by|to|in|from|with|for|at)\ (?:the|a|an|my)\ [\w\s'-]{{1,60}}?\b(?:who|that|which|where)\b
    | \b\w+['’]s\ (?:\w+\ ){{0,2}}\w+['’]s\b
    | \bof\ (?:the|my|a|an)\ [\w\s'-]{{1,60}}?\bof\b
    | \b(?:older|younger|larger|smaller|earlier|later|first|longer|more|better|which)\b.{{1,80}}\bor\b
    | \bboth\b|\bthe\ same\b.{{1,60}}\bas\b
    | 的[^，。？?]{{1,12}}的|[谁哪].{{0,30}}还是
    | の[^、。？?]{{1,8}}の[^、。？?]{{1,8}}の|と[^、。？?]{{1,12}}(?:では|のどちら)""",
    re.IGNORECASE | re.VERBOSE,
)
_VAGUE = re.compile(
    r"""\b(?:some|any)(?:thing|body|one|where)\b|\bstuff\b|\bthings?\ (?:about|with|we)\b
    | \bany\ (?:ideas?|thoughts|news)\b
    | \bthat\ (?:thing|trouble|issue|problem|story|time\ when)\b|\b(?:tell\ me|know)\ (?:more\ )?about\b
    | \bwhat['’]?s\ (?:up|new|going\ on)\b|\bwhat\ happened\b|\bhow\ (?:did|are|were|is)\ things?\b
    | 什么事|那件事|怎么回事|某[个些]|聊聊|说说|怎么样
    | 何か|なにか|なんか|例の|あの件|どうなった|について(?:教|話)""",
    re.IGNORECASE | re.VERBOSE,
)
_CUES: tuple[tuple[Scenario, str, re.Pattern[str]], ...] = (
    ("aggregation", "it asks for all of something", _AGGREGATION),
    ("personal", "it asks what suits the one who asks", _PERSONAL),
    ("multi_hop", "it asks for one thing by way of another", _MULTI_HOP),
    ("vague", "it does not say what it needs", _VAGUE),
)
