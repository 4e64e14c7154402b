"""Facts as (subject, attribute, value): a table of what people say about themselves, and how it is written down.

One row is one way to say one thing. The table is also read backwards, so that "The user lives in Lisbon.", whoever
wrote it, is known to be about the user's location. English only.
"""

# ruff: noqa: E501 - a row of the table is a line

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from memgraph_plugin.memalpha.grammar import pronouns_turned
from memgraph_plugin.memalpha.words import normalise
from memgraph_plugin.types import Memory


@dataclass(frozen=True, slots=True)
class Fact:
    """`subject` is "user", a name, or "user's sister". `single`: it has one value at a time, so a new one replaces it."""

    subject: str
    attribute: str
    value: str
    text: str
    single: bool = False
    importance: float = 0.5
    tentative: bool = False
    """Too weak to replace what is remembered: "I'm Batman"."""

    def as_value(self) -> dict[str, str]:
        return {"subject": self.subject, "attribute": self.attribute, "value": self.value}


@dataclass(frozen=True, slots=True)
class Saying:
    """One way to say one attribute. `template` knows {S} (the subject), {v} (the value) and {a} (the attribute's noun)."""

    attribute: str
    single: bool
    importance: float
    template: str
    pattern: re.Pattern[str]
    listed: bool = False
    tentative: bool = False


_NAME = r"(?-i:[A-Z][\w'-]+(?: [A-Z][\w'-]+){0,2})"
_ONE_OF_A_KIND = "wife|husband|partner|spouse|girlfriend|boyfriend|fianc[eé]e?|mother|mom|mum|father|dad|boss|manager|therapist"
_MANY = (
    "sister|brother|sibling|son|daughter|child|kid|baby|twin|friend|uncle|aunt|cousin|nephew|niece|grandmother|grandma|"
    "grandfather|grandpa|grandson|granddaughter|colleague|coworker|neighbou?r|roommate|flatmate"
)
_PETS = "pet|dog|cat|puppy|kitten|parrot|hamster|rabbit|horse|pony|goldfish|tortoise|turtle|bird"
_RELATION = rf"(?:(?:older|younger|elder|eldest|oldest|youngest|little|big|best|twin|late|ex-?)\s?)?(?:{_ONE_OF_A_KIND}|{_MANY}|{_PETS})"
_OCCUPATION = (
    r"(?:\w+ ){0,2}(?:teacher|nurse|doctor|engineer|developer|programmer|designer|lawyer|attorney|accountant|architect|artist|"
    r"author|baker|banker|barista|builder|butcher|carpenter|chef|cook|consultant|dancer|dentist|director|driver|economist|"
    r"editor|electrician|farmer|firefighter|gardener|hairdresser|historian|journalist|librarian|manager|mechanic|midwife|"
    r"musician|painter|paramedic|pharmacist|photographer|physicist|pilot|plumber|poet|policeman|politician|postdoc|producer|"
    r"professor|psychologist|researcher|sailor|scientist|singer|soldier|student|surgeon|surveyor|tailor|therapist|translator|"
    r"tutor|vet|veterinarian|waiter|waitress|welder|writer|analyst|biologist|chemist|mathematician|statistician|technician)"
)
_DIET = r"(?:vegan|vegetarian|veggie|pescatarian|flexitarian|omnivore|teetotal(?:ler)?|gluten[- ]free|lactose[- ]intolerant)"
_CONDITION = (
    r"(?:an? )?(?:[\w-]+ ){0,2}(?:diabetes|asthma|epilepsy|adhd|add|autism|dyslexia|migraines?|arthritis|anxiety|depression|"
    r"insomnia|hypertension|high blood pressure|cancer|anemia|anaemia|celiac disease|coeliac disease|ibs|eczema|tinnitus|"
    r"scoliosis|intolerance|disorder|syndrome|condition|disease)"
)
_ADJECTIVE_CONDITION = r"(?:diabetic|asthmatic|epileptic|pregnant|deaf|blind|colou?r-?blind|autistic|dyslexic|left-handed|lactose intolerant)"
_LANGUAGES = (
    "english|portuguese|spanish|french|german|italian|dutch|polish|russian|ukrainian|czech|swedish|norwegian|danish|finnish|"
    "greek|turkish|arabic|hebrew|persian|farsi|hindi|urdu|bengali|tamil|chinese|mandarin|cantonese|japanese|korean|vietnamese|"
    "thai|indonesian|malay|swahili|romanian|hungarian|bulgarian|croatian|serbian|catalan|basque|irish|welsh|latin|esperanto"
)
_NATIONALITIES = (
    _LANGUAGES
    + "|american|british|scottish|canadian|australian|brazilian|mexican|argentinian|colombian|chilean|indian|"
    "pakistani|nigerian|kenyan|egyptian|moroccan|austrian|swiss|belgian|israeli|iranian|iraqi|lebanese|filipino|european|asian"
)
_BELIEFS = "catholic|christian|muslim|jewish|hindu|buddhist|protestant|orthodox|atheist|agnostic"
_ASIDES = r"ok|okay|fine|good|done|back|here|ready|sorry|sure|glad|happy|sad|tired|bored|sick|busy|afraid|trying|looking|going"
_NOUN_OF_MINE = (
    r"blood type|hometown|time ?zone|pronouns|star sign|zodiac sign|major|dream job|nickname|middle name|last name|surname|"
    r"mother tongue|native language|first language|religion"
)
_NAMED_OF_MINE = r"car|bike|bicycle|motorbike|boat|phone|laptop|computer|university|college|school|address"
_NUMBER_OF_MINE = r"shoe size|height|weight|postcode|zip code|email(?: address)?|phone number"
_DEPARTMENT = (
    r"HR|IT|Marketing|Sales|Support|Finance|Engineering|Legal|Accounting|Security|Product|Operations|QA"
)
_THING = rf"(?:{_PETS})s?|car|bike|house|flat|apartment|garden|boat|motorbike|piano|guitar|violin|camera|laptop|tesla|van|horse|farm|shop|blog|podcast|company|business|tattoo"
_IDLE_PLAN = (
    r"(?:know|ask|see|say|tell|try|be honest|check|think|do (?:that|this|it)|let|understand|thank|use|make sure|write|create|"
    r"build (?:a|an|this|the) (?:function|class|script|query)|get (?:this|that|it)|hear|add|have|need|be able|go ahead|share|talk|help)\b"
)

_TABLE: tuple[tuple[str, bool, float, str, str], ...] = (
    # attribute, one value at a time, importance, how it is written, how it is said
    ("name", True, 0.9, "{S}'s name is {v}.", r"my (?:full |first |real )?name is (?P<v>[\w'-]+(?: (?-i:[A-Z])[\w'-]*){0,3})(?:,.*)?$"),
    ("name", True, 0.9, "{S}'s name is {v}.", rf"i am (?!(?:{_NATIONALITIES}|{_BELIEFS}|{_ASIDES})\b)(?P<v>{_NAME})(?: from .+|, .+)?$"),
    ("preferred name", True, 0.9, "{S} wants to be called {v}.", r"(?:please )?(?:you can )?(?:call me|i go by|i prefer to be called) (?!(?:later|back|now|again|soon|maybe|crazy|when|if|at|on|an?|any ?time|tomorrow|tonight)\b)(?P<v>[\w'-]+(?: (?-i:[A-Z])[\w'-]*)?)$"),
    ("location", True, 0.8, "{S} lives in {v}.", r"i (?:am living|live|reside|am based|have lived|have been living) (?:in|at) (?P<v>.+)"),
    ("location", True, 0.8, "{S} lives in {v}.", r"(?:i|we) (?:have )?(?:moved|relocated)(?: back)?(?: from .+?)? to (?P<v>.+)"),
    ("location", True, 0.8, "{S} lives in {v}.", r"my (?:home|house|flat|apartment) is in (?P<v>.+)"),
    ("origin", True, 0.7, "{S} is from {v}.", rf"i (?:am|come) (?:originally )?from (?!(?:{_DEPARTMENT})\b)(?P<v>(?-i:[A-Z]).+)"),
    ("origin", True, 0.7, "{S} is from {v}.", r"i grew up in (?P<v>.+)"),
    ("birth date", True, 0.8, "{S} was born on {v}.", r"i was born on (?P<v>.*\d.*)"),
    ("birth year", True, 0.8, "{S} was born in {v}.", r"i was born in (?P<v>(?:19|20)\d\d)$"),
    ("birthplace", True, 0.7, "{S}'s birthplace is {v}.", r"i was born (?:and raised )?in (?P<v>[^\d]+)$"),
    ("birthday", True, 0.8, "{S}'s birthday is {v}.", r"my birthday is (?:on )?(?P<v>.+)"),
    ("nationality", False, 0.6, "{S}'s nationality is {v}.", rf"i am (?P<v>(?:{_NATIONALITIES}))$"),
    ("religion", True, 0.6, "{S}'s religion is {v}.", rf"i am (?:an? )?(?P<v>(?:{_BELIEFS}))$"),
    ("age", True, 0.7, "{S} is {v} years old.", r"i (?:am|turned|have turned) (?P<v>\d{1,3})(?: years old| yo)?$"),
    ("employer", True, 0.7, "{S} works at {v}.", r"i (?:work|am working|started working|have been working|am employed) (?:at|for) (?!(?:night|home|weekends|myself|a living|fun|free|now|the moment)\b)(?P<v>.+)"),
    ("employer", True, 0.7, "{S} works at {v}.", r"i (?:have )?(?:joined|started(?: a (?:new )?job)? at|got a (?:new )?job at) (?P<v>(?-i:[A-Z]).+)"),
    ("field", True, 0.6, "{S} works in {v}.", r"i work in (?P<v>(?!an? |the |my )(?-i:[a-z])[\w -]+)$"),
    ("job", True, 0.7, "{S} works as {v}.", r"i (?:work|am working|started working|got a job|am employed) as (?P<v>.+)"),
    ("job", True, 0.7, "{S} works as {v}.", rf"i (?:am|became|have become) (?P<v>an? {_OCCUPATION})\b"),
    ("job", True, 0.7, "{S} works as {v}.", r"my (?:job|occupation|profession|job title) is (?P<v>.+)"),
    ("marital status", True, 0.7, "{S}'s marital status is {v}.", r"(?:i am|i got|we got|i have got) (?P<v>married|single|divorced|engaged|widowed|separated)\b"),
    ("{a}", False, 0.7, "{S}'s {a} is called {v}.", rf"my (?P<a>{_RELATION})s?(?:'s name is| (?:is|are) (?:called|named)|,? whose names? (?:is|are)) (?P<v>.+)"),
    ("{a}", False, 0.7, "{S}'s {a} is called {v}.", rf"(?:i|we) (?:have|adopted|bought|own)(?: an?| two| three| one)? (?:[\w-]+ ){{0,4}}?(?P<a>{_RELATION})s?,? (?:called|named|whose names? (?:is|are)) (?P<v>.+)"),
    ("{a}", False, 0.7, "{S}'s {a} is called {v}.", rf"my (?P<a>{_RELATION}),? (?P<v>{_NAME})(?:,|$| (?:is|was|has|lives|works|loves|likes|died|turned)\b)"),
    ("{a}", False, 0.7, "{S}'s {a} is called {v}.", rf"(?P<v>{_NAME}) is my (?P<a>{_RELATION})$"),
    ("family", False, 0.6, "{S} has family: {v}.", rf"i have (?P<v>(?:an?|one|two|three|four|five|six|\d) (?:\w+ )?(?:{_ONE_OF_A_KIND}|{_MANY}|children)s?(?: and (?:an?|one|two|three|four|five|\d) (?:{_MANY})s?)?)$"),
    ("favourite {a}", True, 0.6, "{S}'s favourite {a} is {v}.", r"my (?:all-time )?fav(?:ou?rite)? (?P<a>[\w-]+(?: [\w-]+){0,2}?) (?:is|are) (?P<v>.+)"),
    ("favourite {a}", True, 0.6, "{S}'s favourite {a} is {v}.", r"(?P<v>.+?) (?:is|are) my (?:all-time )?fav(?:ou?rite)? (?P<a>[\w-]+(?: [\w-]+){0,2})$"),
    ("{a}", True, 0.6, "{S}'s {a} is {v}.", rf"my (?P<a>{_NOUN_OF_MINE}) (?:is|are) (?P<v>.+)"),
    ("{a}", True, 0.6, "{S}'s {a} is {v}.", rf"my (?P<a>{_NAMED_OF_MINE}) is (?P<v>(?:an? |the )?(?:[a-z]+ )?(?-i:[A-Z\d]).+)"),
    ("{a}", True, 0.6, "{S}'s {a} is {v}.", rf"my (?P<a>{_NUMBER_OF_MINE}) is (?P<v>\S*[\d@].*)"),
    ("allergy", False, 0.9, "{S} is allergic to {v}.", r"i (?:am|have always been) (?:severely |very |highly |deathly )?allergic to (?P<v>.+)"),
    ("allergy", False, 0.9, "{S} is allergic to {v}.", r"i have an? (?:severe |bad |serious )?(?P<v>[\w-]+) allergy"),
    ("diet", False, 0.8, "{S}'s diet is {v}.", rf"i (?:am|became|have become|turned|went) (?:an? )?(?:strict )?(?P<v>{_DIET})\b"),
    ("avoids", False, 0.7, "{S} does not eat {v}.", r"i (?:do not|cannot|never|am not allowed to) eat (?P<v>.+)"),
    ("avoids drinking", False, 0.7, "{S} does not drink {v}.", r"i (?:do not|cannot|never) drink (?P<v>.+)"),
    ("health", False, 0.8, "{S} has {v}.", rf"i (?:have|suffer from|was diagnosed with|have been diagnosed with|live with) (?P<v>{_CONDITION})\b"),
    ("health", False, 0.8, "{S} has {v}.", r"i (?:was|have been) diagnosed with (?P<v>.+)"),
    ("condition", False, 0.8, "{S} is {v} (health).", rf"i am (?P<v>{_ADJECTIVE_CONDITION})\b"),
    ("language", False, 0.6, "{S} speaks {v}.", rf"i (?:can )?speak (?:fluent |some |a little )?(?P<v>(?:{_LANGUAGES})\b.*)"),
    ("dislikes", False, 0.6, "{S} dislikes {v}.", r"i (?:hate|dislike|cannot stand|detest|loathe|do not (?:like|enjoy|care for)|am not a (?:big )?fan of|am not into) (?P<v>.+)"),
    ("likes", False, 0.6, "{S} likes {v}.", r"i (?:like|love|enjoy|adore|am into|am fond of|am crazy about|am a (?:big |huge )?fan of) (?P<v>.+)"),
    ("prefers", False, 0.6, "{S} prefers {v}.", r"i (?:prefer|would rather have) (?P<v>.+)"),
    ("plays", False, 0.5, "{S} plays {v}.", r"i play (?!(?:it|along|with|around|safe|dumb|nice|hard|by|for|at|the (?:long|fool|victim|field|game|part|role))\b)(?P<v>(?:the )?[\w-]+(?: [\w-]+)?(?: and (?:the )?[\w-]+)?)$"),
    ("studies", True, 0.6, "{S} studies {v}.", r"i (?:study|am studying|major in|am majoring in) (?P<v>.+)"),
    ("learning", False, 0.5, "{S} is learning {v}.", r"i am (?:learning|taking lessons in) (?P<v>.+)"),
    ("owns", False, 0.5, "{S} owns {v}.", r"i own (?P<v>an? .+)"),
    ("owns", False, 0.5, "{S} owns {v}.", rf"i (?:drive|ride) (?P<v>an? (?:[\w-]+ ){{0,2}}(?:{_THING}|(?-i:[A-Z\d]).*))$"),
    ("owns", False, 0.5, "{S} owns {v}.", rf"i (?:have|bought|adopted) (?P<v>(?:an?|two|three) (?:[\w-]+ ){{0,2}}(?:{_THING}))$"),
    ("wish", False, 0.5, "{S} would like to {v}.", r"i (?:would (?:love|like)|dream of|have always wanted|hope) to (?P<v>(?:visit|see|go to|learn|live|own|travel|become|climb|run|move)\b.+)"),
    ("plan", False, 0.5, "{S} plans to {v}.", rf"i (?:plan to|am planning to|am going to|intend to|want to|have decided to|am about to) (?!{_IDLE_PLAN})(?P<v>\w+ .+)"),
)  # fmt: skip

SAYINGS = tuple(
    Saying(
        attribute, single, importance, template, re.compile(rf"^{pattern}", re.I),
        listed=attribute in ("likes", "dislikes", "language", "allergy", "avoids", "{a}"),
        tentative=attribute == "name" and pattern.startswith("i am"),
    )
    for attribute, single, importance, template, pattern in _TABLE
)  # fmt: skip

ALIASES = {
    "address": "location",
    "home": "location",
    "city": "location",
    "residence": "location",
    "home city": "location",
    "lives in": "location",
    "where i live": "location",
    "where i work": "employer",
    "workplace": "employer",
    "company": "employer",
    "works at": "employer",
    "how old i am": "age",
    "profession": "job",
    "occupation": "job",
    "what i do": "job",
    "allergies": "allergy",
    "languages": "language",
    "like": "likes",
    "dislike": "dislikes",
}
"""Other words for the table's attributes, as models and people use them."""

OPPOSITES = {"likes": "dislikes", "dislikes": "likes"}

_TAIL = re.compile(
    r"""\s*(?:,\s*(?:which|who|where|he|she|it|they|so|and|but|because|not|thanks|please|by\s+the\s+way|you\s+know|though|too|right|
    always|never|ever|since|unfortunately|sadly|especially|mostly|obviously|lol|haha|except|only|just|even|also)\b.*|\s+w/.*|
    [(\[].*|\s+(?:because|which|although|though|when|while|whenever|even\s+though|as\s+well|too|these\s+days|
    at\s+the\s+moment|right\s+now|now|nowadays|anymore|again|instead|actually|at\s+all|very\s+much|so\s+much|a\s+lot|
    for\s+(?:work|now|years|ages|a\s+while|(?:\d+|\w+)\s+(?:years|months|weeks).*)|with\s+(?:my|our)\b.*|but\b.*|by\s+the\s+way|
    and\s+(?:i|my|our|we|it|they|he|she|have|has|am|is|works?|lives?|then)\b.*|or\s+something.*|lol|haha\w*|btw|though|[:;]-?[)D(])(?:\s.*)?)$""",
    re.I | re.X,
)
_EMPTY_VALUE = re.compile(
    r"^(?:it|that|this|these|those|them|you|your|yours|him|her|he|she|me|myself|what|how|when|where|why|there|here|to|"
    r"someone|something|everything|nothing|anything|so|not|every|an? (?:lot|bit|ton|while)|the (?:idea|way|sound|fact|same|answer|question)|…)\b|…|://",
    re.I,
)
_TASTES = ("likes", "dislikes", "prefers", "plan", "wish", "learning")
_VAGUE = re.compile(
    r"^the (?-i:[a-z])|\b(?:this|that|these|those|it|them|you|yours?|his|her|here|there|something|someone|more|option|version)\b|(?:\S+\s+){8}",
    re.I,
)
_PLACES = ("location", "origin", "birthplace")
_NO_PLACE = re.compile(
    r"^(?:an?|my|our|your|his|her|their)\b|^the (?!(?:us|usa|uk|uae|netherlands|philippines|bahamas)\b)(?-i:[a-z])|^\d",
    re.I,
)
_LOWER = re.compile(r"^(?:the )?[a-z]")
_LIST = re.compile(r"\s*,\s*(?:and\s+)?|\s+and\s+|\s*&\s*")


def read_clause(clause: str, subject: str, name: str) -> Iterator[Fact]:
    """The facts that a clause in the first person states; `name` is how the subject is written ("The user")."""
    for saying in SAYINGS:
        match = saying.pattern.match(clause)
        if not match:
            continue
        noun = _noun(match.groupdict().get("a") or "")
        attribute = saying.attribute.replace("{a}", noun)
        single = saying.single or bool(re.fullmatch(_ONE_OF_A_KIND, noun))
        facts = [
            Fact(
                subject,
                attribute,
                value,
                _written(saying.template, name, value, noun),
                single,
                saying.importance,
                saying.tentative,
            )
            for value in _values(match["v"], saying.listed)
            if not _implausible(attribute, value, clause)
        ]
        yield from facts
        if facts:
            return


def _implausible(attribute: str, value: str, clause: str) -> bool:
    """Whether the words fit but the sense hardly does: "I live in a hurry", "I work for free".

    Who writes with capitals gives them to places and firms; who writes without is believed in lower case.
    """
    if attribute in _TASTES:
        return bool(_VAGUE.search(value))
    is_common = bool(_LOWER.match(value)) and clause[:1].isupper()
    if attribute in _PLACES:
        return is_common or bool(_NO_PLACE.match(value))
    if attribute == "employer":
        return bool(re.match(r"my\b|their\b|\d", value)) or (
            is_common and not re.match(r"(?:an?|the) ", value)
        )
    return False


def _values(said: str, listed: bool) -> Iterator[str]:
    value, before = said, ""
    while value != before:
        value, before = _TAIL.sub("", value).strip(" ,.;:!?-"), value
    parts = _LIST.split(value) if listed else [value]
    if any(not 1 <= len(part.split()) <= 3 for part in parts):
        parts = [value]
    for part in parts:
        if part and len(part.split()) <= 12 and not _EMPTY_VALUE.search(part):
            yield pronouns_turned(part)


def _written(template: str, name: str, value: str, noun: str) -> str:
    return template.replace("{S}", name).replace("{a}", noun).replace("{v}", value)


def _noun(said: str) -> str:
    return normalise(said).replace("favorite", "favourite").replace("color", "colour")


def fact_of(memory: Memory) -> Fact | None:
    """What a memory is about: from its value where that says so, else read off its text."""
    return fact_in(memory.text, memory.value)


def fact_in(text: str, value: Mapping[str, Any]) -> Fact | None:
    subject, attribute = value.get("subject"), value.get("attribute")
    if isinstance(subject, str) and isinstance(attribute, str):
        attribute = attribute.casefold().replace("_", " ")
        attribute = ALIASES.get(attribute, attribute)
        said = value.get("value")
        return Fact(
            subject.casefold(), attribute, said if isinstance(said, str) else "", text, is_single(attribute)
        )
    for pattern, saying in _WRITTEN:
        match = pattern.match(text)
        if match:
            noun = _noun(match.groupdict().get("a") or "")
            attribute = saying.attribute.replace("{a}", noun)
            subject = re.sub(r"^the (?=user)", "", match["S"], flags=re.I).casefold()
            return Fact(subject, attribute, match["v"], text, is_single(attribute), saying.importance)
    return None


def same_value(a: str, b: str) -> bool:
    return _bare(a) == _bare(b)


def _bare(value: str) -> str:
    return re.sub(r"^(?:an?|the|my|their)\s+", "", normalise(value))


def is_single(attribute: str) -> bool:
    """Whether the attribute has one value at a time."""
    return (
        attribute in _SINGLE
        or attribute.startswith("favourite ")
        or bool(
            re.fullmatch(rf"{_ONE_OF_A_KIND}|{_NOUN_OF_MINE}|{_NAMED_OF_MINE}|{_NUMBER_OF_MINE}", attribute)
        )
    )


def _backwards(template: str) -> re.Pattern[str]:
    pattern = re.escape(template).replace(
        r"\{S\}", r"(?P<S>(?:the )?user(?:'s [\w ]+?)?|(?-i:[A-Z])[\w'-]*(?: (?-i:[A-Z])[\w'-]*)*)"
    )
    pattern = pattern.replace(r"\{a\}", r"(?P<a>[\w' -]+?)").replace(r"\{v\}", r"(?P<v>.+?)")
    return re.compile(f"^{pattern.removesuffix('.')}.?$", re.I)


_SINGLE = frozenset(saying.attribute for saying in SAYINGS if saying.single)
_WRITTEN = tuple(
    (_backwards(template), saying)
    for template, saying in {saying.template: saying for saying in SAYINGS}.items()
)
OF_RELATION = re.compile(rf"^my (?P<who>{_RELATION})'?s (?P<rest>(?:birthday|job|fav\w*) .+)$", re.I)
RELATION = re.compile(
    rf"^my (?P<who>{_RELATION})(?:,? (?P<name>{_NAME}),?)? (?P<verb>\w+) (?P<rest>.+)$", re.I
)
