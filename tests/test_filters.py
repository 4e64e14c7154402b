import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memgraph_plugin.store.filters import matches, to_jsonpath

ADA = {
    "name": "Ada",
    "age": 36,
    "rate": 9.5,
    "tags": ["math", "poetry"],
    "home": {"city": "London"},
    "gone": None,
    "a.b": 1,
    "a": {"b": 2, "c": {"d": 3}},
}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({}, True),
        ({"name": "Ada"}, True),
        ({"name": "ada"}, False),
        ({"age": 36.0}, True),
        ({"age": "36"}, False),
        ({"age": {"$gt": 9}}, True),
        ({"age": {"$gt": "9"}}, False),
        ({"age": {"$gte": 36, "$lt": 37}}, True),
        ({"name": {"$lt": "Bob"}}, True),
        ({"name": {"$ne": "Bob"}}, True),
        ({"missing": None}, True),
        ({"missing": {"$ne": 1}}, True),
        ({"missing": {"$exists": False}}, True),
        ({"gone": {"$exists": True}}, True),
        ({"age": {"$in": [1, 36, "x"]}}, True),
        ({"age": {"$nin": [36]}}, False),
        ({"missing": {"$in": [None]}}, True),
        ({"tags": {"$contains": "math"}}, True),
        ({"name": {"$contains": "d"}}, True),
        ({"tags": ["math", "poetry"]}, True),
        ({"tags": ["poetry", "math"]}, False),
        ({"home": {"city": "London"}}, True),
        ({"home": {}}, False),
        ({"home": {"$eq": {"city": "London"}}}, True),
        ({"$or": [{"name": "Bob"}, {"age": 36}]}, True),
        ({"$and": [{"name": "Ada"}, {"age": 35}]}, False),
        ({"$not": {"missing": {"$gt": 1}}}, True),
        ({"$or": []}, False),
        ({"age": True}, False),
        ({"home.city": "London"}, True),
        ({"home.city": {"$in": ["Paris", "London"]}}, True),
        ({"home.street": None}, True),
        ({"home.street": {"$exists": False}}, True),
        ({"a.c.d": {"$gt": 2}}, True),
        ({"a.c": {"d": 3}}, True),
        ({"a.b": 1}, True),
        ({"a.b": 2}, False),
        ({"tags.0": "math"}, False),
        ({"name.first": {"$exists": False}}, True),
        ({".": None}, True),
    ],
)
def test_a_filter_says_which_values_it_means(condition: dict[str, Any], expected: bool) -> None:
    assert matches(condition, ADA) is expected


def test_true_is_not_one() -> None:
    assert not matches({"k": 1}, {"k": True})
    assert not matches({"k": [1]}, {"k": [True]})


@pytest.mark.parametrize(
    "condition",
    [
        {"age": {"$near": 3}},
        {"$nor": []},
        {"age": {"$gt": None}},
        {"age": {"$in": 3}},
        {"age": {"$exists": "yes"}},
        {"$and": {"age": 3}},
        {"age": float("nan")},
        {"age": {1, 2}},
        {"name": "nul\0"},
        {"age": {"$gt": 1, "plain": 2}},
        {"a" + ".a" * 40: 1},
    ],
)
def test_a_filter_that_cannot_work_is_refused_by_both_compilers(condition: dict[str, Any]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        matches(condition, ADA)
    with pytest.raises(ValueError):  # noqa: PT011
        to_jsonpath(condition)


def test_an_unknown_operator_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"\$near.*\$gte"):
        matches({"age": {"$near": 3}}, ADA)


def test_values_travel_as_variables_and_never_in_the_path() -> None:
    path, variables = to_jsonpath({"name": {"$eq": "'; DROP TABLE memory; --"}, "tags": ["x) || (1 == 1"]})
    assert "DROP" not in path
    assert "1 == 1" not in path
    assert "'; DROP TABLE memory; --" in variables.values()


DOTTED = ["dot.ted", "$.a", "a.b", "b.a.b", ".", "a."]
KEYS = st.sampled_from(["a", "b", 'q"uote', "é", "back\\slash", "new\nline", "", "中", *DOTTED])
TEXTS = st.one_of(
    st.sampled_from(["", "a", "b", "ab", "10", "9", "\U0001f600", "\uffee", "%s", "'", '"', "\\", "(", ".*"]),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=4),
)
NUMBERS = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([0.1, 1.0, -0.0, 1e23, 10**23, 2**53, float(2**53), 2**53 + 1, 1e-300, 10**400]),
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(KEYS.filter(lambda k: k[:1] != "$"), inner, max_size=3)
    ),
    max_leaves=5,
)
CONDITIONS = st.one_of(
    VALUES,
    st.builds(
        dict,
        st.lists(
            st.one_of(
                st.tuples(st.sampled_from(["$eq", "$ne", "$contains"]), VALUES),
                st.tuples(st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), NUMBERS | TEXTS),
                st.tuples(st.sampled_from(["$in", "$nin"]), st.lists(VALUES, max_size=4)),
                st.tuples(st.just("$exists"), st.booleans()),
            ),
            min_size=1,
            max_size=2,
        ),
    ),
)
FILTERS = st.recursive(
    st.dictionaries(KEYS.filter(lambda k: k[:1] != "$"), CONDITIONS, max_size=2),
    lambda inner: st.one_of(
        st.builds(lambda parts: {"$and": parts}, st.lists(inner, max_size=3)),
        st.builds(lambda parts: {"$or": parts}, st.lists(inner, max_size=3)),
        st.builds(lambda part: {"$not": part}, inner),
    ),
    max_leaves=4,
)

ANSWER = """
SELECT array(
    SELECT jsonb_path_exists(value, %s::jsonpath, %s::jsonb)
    FROM jsonb_array_elements(%s::jsonb) WITH ORDINALITY AS given (value, i) ORDER BY i)
"""


@pytest.fixture(scope="module")
def connection(postgres: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(postgres, autocommit=True) as conn:
        yield conn


@settings(max_examples=400, deadline=None)
@given(condition=FILTERS, values=st.lists(st.dictionaries(KEYS, VALUES, max_size=4), min_size=1, max_size=5))
def test_a_filter_means_the_same_in_python_and_in_postgres(
    connection: psycopg.Connection, condition: dict[str, Any], values: list[dict[str, Any]]
) -> None:
    path, variables = to_jsonpath(condition)
    row = connection.execute(ANSWER, (path, json.dumps(variables), json.dumps(values))).fetchone()
    assert row == ([matches(condition, value) for value in values],)
