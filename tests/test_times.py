"""When "two weeks ago" was, for somebody who says it on Monday the 8th of May 2023."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memgraph_plugin.memalpha.times import find_times

MONDAY = datetime(2023, 5, 8, 13, 56, tzinfo=UTC)


@pytest.mark.parametrize(
    ("said", "phrase"),
    [
        ("I ran today", "on 2023-05-08"),
        ("I ran last night", "on 2023-05-07"),
        ("the day before yesterday", "on 2023-05-06"),
        ("tomorrow morning", "on 2023-05-09"),
        ("a few days ago", "on 2023-05-05"),
        ("two weeks ago", "in the week of 2023-04-24"),
        ("3 Fridays ago", "on 2023-04-21"),
        ("a month ago", "in April 2023"),
        ("last Friday", "on 2023-05-05"),
        ("last weekend", "on 2023-05-06"),
        ("this weekend", "on 2023-05-13"),
        ("last week", "in the week of 2023-05-01"),
        ("next month", "in June 2023"),
        ("last year", "in 2022"),
        ("last May", "in May 2022"),
        ("next May", "in May 2024"),
        ("on Friday", "on 2023-05-05"),
        ("I will leave on Friday", "on 2023-05-12"),
        ("I'm flying there on Friday", "on 2023-05-12"),
        ("I went on Friday. I will rest.", "on 2023-05-05"),
        ("I am seeing somebody since March", "in March 2023"),
        ("my flight leaves on 5 June", "on 2023-06-05"),
        ("on 7 May", "on 2023-05-07"),
        ("on 20 July", "on 2022-07-20"),
        ("May 7th, 2021", "on 2021-05-07"),
        ("the 3rd of March", "on 2023-03-03"),
        ("on 2021-02-03", "on 2021-02-03"),
        ("in May 2020", "in May 2020"),
        ("in march", "in March 2023"),
        ("since 2019", "in 2019"),
        ("in two weeks", "in the week of 2023-05-22"),
    ],
)
def test_a_relative_time_is_resolved(said: str, phrase: str) -> None:
    assert [time.phrase() for time in find_times(said, MONDAY)] == [phrase]


@pytest.mark.parametrize(
    "said",
    [
        "I may go",
        "on 31 February",
        "9999 years ago",
        "5/7/2023",
        "the march of time",
        "2019 apples",
        "I sat on it",
    ],
)
def test_what_is_no_plain_date_is_left_alone(said: str) -> None:
    assert find_times(said, MONDAY) == []


def test_a_time_begins_in_the_zone_of_who_said_it() -> None:
    lisbon = timezone(timedelta(hours=1))
    [time] = find_times("yesterday", MONDAY.astimezone(lisbon))
    assert time.moment(MONDAY.astimezone(lisbon)) == datetime(2023, 5, 7, tzinfo=lisbon)


@given(st.text(max_size=40), st.datetimes())
def test_no_text_and_no_moment_break_it(text: str, at: datetime) -> None:
    for time in find_times(f"{text} 3 months ago, next week, on 29 February, in 2 days {text}", at):
        assert time.first <= time.last
