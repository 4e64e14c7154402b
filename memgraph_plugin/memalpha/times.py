"""Times that people say ("two weeks ago", "on 7 May", "last Friday"), resolved against when they said them.

English only. What could mean two dates (5/7/2023) is left alone rather than guessed.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal, TypeAlias

from memgraph_plugin.memalpha.words import words

Unit: TypeAlias = Literal["day", "week", "month", "year"]

MONTHS = {name.lower(): number for number, name in enumerate(calendar.month_name) if name}
WEEKDAYS = {name.lower(): number for number, name in enumerate(calendar.day_name)}
NUMBERS = {
    word: number
    for number, word in enumerate(
        words(
            """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
        sixteen seventeen eighteen nineteen"""
        )
    )
} | {
    word: 10 * tens
    for tens, word in enumerate(words("twenty thirty forty fifty sixty seventy eighty ninety"), 2)
}
_COUNTS = NUMBERS | {"a": 1, "an": 1, "a couple of": 2, "couple of": 2, "a few": 3, "few": 3}


@dataclass(frozen=True, slots=True)
class SaidTime:
    """A time in a text: the days it covers (both included), and where it stands in the text."""

    first: date
    last: date
    unit: Unit
    begin: int
    end: int

    def phrase(self) -> str:
        """The same time without the moment it was said: "on 2023-05-07", "in May 2023"."""
        match self.unit:
            case "day":
                return f"on {self.first.isoformat()}"
            case "week":
                return f"in the week of {self.first.isoformat()}"
            case "month":
                return f"in {calendar.month_name[self.first.month]} {self.first.year}"
            case "year":
                return f"in {self.first.year}"

    def moment(self, said_at: datetime) -> datetime:
        """Its beginning, in the time zone of `said_at`."""
        return datetime.combine(self.first, time.min, said_at.tzinfo)


def aware(moment: datetime) -> datetime:
    """The moment with a time zone: UTC, where it says none."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def find_times(text: str, at: datetime) -> list[SaidTime]:
    """Every time in the text, in order; the longest reading where two overlap."""
    found: list[SaidTime] = []
    for pattern, resolve in _FORMS:
        for match in pattern.finditer(text):
            if any(match.start() < other.end and other.begin < match.end() for other in found):
                continue
            try:
                first, unit = resolve(match, at.date(), _is_ahead(text, match))
                last = _last_day(first, unit)
            except (ValueError, OverflowError, KeyError):
                continue
            found.append(SaidTime(first, last, unit, match.start(), match.end()))
    return sorted(found, key=lambda time_: time_.begin)


def _is_ahead(text: str, match: re.Match[str]) -> bool:
    """Whether the sentence around a time speaks of what is to come."""
    begin = max(text.rfind(stop, 0, match.start()) for stop in ".!?\n") + 1
    ends = [end for stop in ".!?\n" if (end := text.find(stop, match.end())) >= 0]
    since = match.group()[:5].lower() == "since"
    return not since and bool(_AHEAD.search(text, begin, min(ends, default=len(text))))


def _last_day(first: date, unit: Unit) -> date:
    match unit:
        case "day":
            return first
        case "week":
            return first + timedelta(days=6)
        case "month":
            return first.replace(day=calendar.monthrange(first.year, first.month)[1])
        case "year":
            return first.replace(month=12, day=31)


def _shift(day: date, count: int, unit: str) -> date:
    if unit in ("month", "year"):
        months = day.year * 12 + day.month - 1 + count * (12 if unit == "year" else 1)
        year, month = divmod(months, 12)
        return date(year, month + 1, min(day.day, calendar.monthrange(year, month + 1)[1]))
    return day + timedelta(days=count * (1 if unit == "day" else 7))


def _start(day: date, unit: str) -> date:
    match unit:
        case "week":
            return day - timedelta(days=day.weekday())
        case "month":
            return day.replace(day=1)
        case "year":
            return day.replace(month=1, day=1)
    return day


def _near_weekday(day: date, weekday: int, direction: Literal[-1, 1]) -> date:
    """The nearest such weekday that is not `day` itself, behind (-1) or ahead (1)."""
    distance = (direction * (weekday - day.weekday())) % 7 or 7
    return day + timedelta(days=direction * distance)


_Resolved: TypeAlias = tuple[date, Unit]


def _simple(match: re.Match[str], today: date, _: bool) -> _Resolved:
    word = match["word"].lower()
    if word.startswith("the day before"):
        return today - timedelta(days=2), "day"
    if word.startswith("the day after"):
        return today + timedelta(days=2), "day"
    if word in ("yesterday", "last night") or word.startswith("yesterday"):
        return today - timedelta(days=1), "day"
    return today + timedelta(days=1 if word.startswith("tomorrow") else 0), "day"


def _counted(match: re.Match[str], today: date, _: bool) -> _Resolved:
    said = " ".join(match["count"].lower().split())
    count = int(said) if said.isdigit() else _COUNTS[said]
    unit = match["unit"].lower()
    step = -count if "ago" in match.groupdict() else count
    if unit == "weekend":
        return _start(_shift(today, step, "week"), "week") + timedelta(days=5), "day"
    if unit in WEEKDAYS:
        return _shift(_near_weekday(today, WEEKDAYS[unit], -1), step + 1, "week"), "day"
    first = _shift(today, step, unit)
    return (first, "day") if unit == "day" else (_start(first, unit), _unit(unit))


def _unit(word: str) -> Unit:
    units: dict[str, Unit] = {"week": "week", "month": "month", "year": "year"}
    return units.get(word, "day")


def _neighbour(match: re.Match[str], today: date, _: bool) -> _Resolved:
    step = {"last": -1, "past": -1, "this": 0, "next": 1, "coming": 1}[match["which"].lower()]
    unit = match["unit"].lower()
    if unit == "weekend":
        return _start(_shift(today, step, "week"), "week") + timedelta(days=5), "day"
    if unit in WEEKDAYS:
        if step == 0:
            return _start(today, "week") + timedelta(days=WEEKDAYS[unit]), "day"
        return _near_weekday(today, WEEKDAYS[unit], -1 if step < 0 else 1), "day"
    if unit in MONTHS:
        still_ahead = MONTHS[unit] > today.month
        if step < 0:
            passed = MONTHS[unit] < today.month
            return date(today.year - (not passed), MONTHS[unit], 1), "month"
        return date(today.year + (step > 0 and not still_ahead), MONTHS[unit], 1), "month"
    return _start(_shift(_start(today, unit), step, unit), unit), _unit(unit)


def _weekday(match: re.Match[str], today: date, ahead: bool) -> _Resolved:
    return _near_weekday(today, WEEKDAYS[match["weekday"].lower()], 1 if ahead else -1), "day"


def _calendar_day(match: re.Match[str], today: date, ahead: bool) -> _Resolved:
    month, number = MONTHS[_full_month(match["month"])], int(match["day"])
    if match["year"]:
        return date(int(match["year"]), month, number), "day"
    day = date(today.year, month, number)
    if ahead and day < today:
        day = day.replace(year=today.year + 1)
    elif not ahead and day > today:
        day = day.replace(year=today.year - 1)
    return day, "day"


def _calendar_month(match: re.Match[str], today: date, ahead: bool) -> _Resolved:
    month = MONTHS[_full_month(match["month"])]
    if match["year"]:
        return date(int(match["year"]), month, 1), "month"
    year = today.year + (
        1 if ahead and month < today.month else -1 if not ahead and month > today.month else 0
    )
    return date(year, month, 1), "month"


def _full_month(said: str) -> str:
    return next(month for month in MONTHS if month.startswith(said.lower().rstrip(".")[:3]))


def _iso(match: re.Match[str], _: date, __: bool) -> _Resolved:
    return date.fromisoformat(match["iso"]), "day"


def _year(match: re.Match[str], _: date, __: bool) -> _Resolved:
    return date(int(match["year"]), 1, 1), "year"


_AHEAD = re.compile(
    r"""\b(?:will|shall|i'll|we'll|going\s+to|planning|plans?\s+to|intend|tomorrow|upcoming|next|booked|scheduled|leaves|
    departs|arrives|starts|begins|is\s+on|are\s+on|due|(?:(?:am|is|are)\s+|'(?:m|re|s)\s+|im\s+)(?:getting|flying|seeing|
    visiting|meeting|expecting|moving|leaving|going|coming|having|starting|travell?ing|driving|taking|running|hosting)|(?:have|has|got)\s+an?\s+(?:[\w-]+\s+){0,3}(?:appointment|meeting|
    interview|flight|exam|test|wedding|trip|deadline|party|concert|surgery|race|match|date|call))\b""",
    re.I | re.X,
)
_MONTH = (
    r"(?P<month>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|"
    r"oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\b(?:\.(?=,?\s+\d))?"
)
_DAY = r"(?P<day>[0-3]?\d)(?:st|nd|rd|th)?"
_YEAR = r"(?P<year>(?:19|20)\d\d)"
_WEEKDAY = "|".join(WEEKDAYS)
_COUNT = r"(?P<count>\d{1,3}|" + "|".join(sorted(_COUNTS, key=len, reverse=True)).replace(" ", r"\s+") + ")"

_FORMS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str], date, bool], _Resolved]], ...] = tuple(
    (re.compile(form, re.I), resolve)
    for form, resolve in (
        (r"\b(?:on\s+|since\s+)?(?P<iso>\d{4}-\d\d-\d\d)\b", _iso),
        (rf"\b(?:on\s+|since\s+)?(?:the\s+)?{_DAY}\s+(?:of\s+)?{_MONTH}(?:,?\s+{_YEAR}\b)?", _calendar_day),
        (rf"\b(?:on\s+|since\s+)?{_MONTH}\s+(?:the\s+)?{_DAY}\b(?!\d|:)(?:,?\s+{_YEAR}\b)?", _calendar_day),
        (rf"\b(?:in\s+|since\s+)?{_MONTH}\s+(?:of\s+)?{_YEAR}\b", _calendar_month),
        (rf"\b{_COUNT}\s+(?P<unit>day|week|month|year|weekend|{_WEEKDAY})s?\s+(?P<ago>ago)\b", _counted),
        (rf"\bin\s+{_COUNT}\s+(?P<unit>day|week|month|year)s?\b(?!\s+ago)", _counted),
        (r"\b(?P<word>the day before yesterday|the day after tomorrow)\b", _simple),
        (
            r"\b(?P<word>yesterday(?: morning| afternoon| evening| night)?|last night|today|tonight|"
            r"this (?:morning|afternoon|evening)|tomorrow(?: morning| afternoon| evening| night)?)\b",
            _simple,
        ),
        (
            rf"\b(?:on\s+|since\s+)?(?:the\s+)?(?P<which>last|past|this|next|coming)\s+"
            rf"(?P<unit>week|month|year|weekend|{_WEEKDAY}|{'|'.join(MONTHS)})\b",
            _neighbour,
        ),
        (rf"\b(?:on|since)\s+(?P<weekday>{_WEEKDAY})\b(?!s)", _weekday),
        (rf"\b(?:in|since)\s+{_MONTH}(?P<year>)(?!\s+\d)", _calendar_month),
        (rf"\b(?:in|since|back in)\s+{_YEAR}\b(?!-)", _year),
    )
)
