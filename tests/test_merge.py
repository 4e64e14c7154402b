"""Several searches made one list, on numbers worked out by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from memgraph_plugin.memorag.merge import (
    Ranking,
    in_document_order,
    memorag,
    priors,
    supported,
    weighted_rrf,
)
from memgraph_plugin.types import Hit, Memory

START = datetime(2024, 1, 1, tzinfo=UTC)


def passage(position: int, *, book: str = "book", tokens: int = 10, cosine: float | None = 0.5) -> Hit:
    memory = Memory(
        namespace=("b",),
        key=f"{book}{position}",
        text="",
        session=book,
        position=position,
        tokens=tokens,
        created_at=START + timedelta(days=position),
    )
    return Hit(memory, 1.0, cosine)


def ranking(*positions: int, weight: float = 1.0, kept: int = 0) -> Ranking:
    return Ranking([passage(position) for position in positions], weight, kept)


def places(hits: list[Hit]) -> list[int | None]:
    return [hit.memory.position for hit in hits]


def test_memorags_merge_is_the_top_three_of_each_once_in_the_order_of_the_document() -> None:
    assert places(memorag([ranking(9, 2, 5, 1), ranking(2, 7, 0, 8), ranking(4)])) == [0, 2, 4, 5, 7, 9]
    assert memorag([]) == []


def test_ranks_are_weighed_and_summed() -> None:
    # 1: 1/61; 2: 1/62 + .7/61 = .0276; 3: 1/63 = .01587; 4: .7/62 + .7/61 = .0228; 5: .7/62.
    rankings = [ranking(1, 2, 3), ranking(2, 4, weight=0.7), ranking(4, 5, weight=0.7)]
    found = [places(weighted_rrf(rankings, token_budget=1000, k=k)) for k in range(1, 6)]
    assert found == [[1], [1, 2], [1, 2, 4], [1, 2, 3, 4], [1, 2, 3, 4, 5]]


def test_the_users_own_best_always_stays_and_what_clues_must_keep_comes_next() -> None:
    others = [ranking(7, weight=2.0), ranking(7, 8, weight=2.0), ranking(9, weight=0.01, kept=1)]
    assert places(weighted_rrf([ranking(1), *others], token_budget=10)) == [1]
    assert places(weighted_rrf([ranking(1), *others], token_budget=20)) == [1, 9]
    assert places(weighted_rrf([ranking(1), *others], token_budget=30)) == [1, 7, 9]


def test_the_budget_holds_and_a_memory_that_is_larger_is_passed_over() -> None:
    own = Ranking(
        [passage(1, tokens=500), passage(2, tokens=60), passage(3, tokens=60), passage(4, tokens=40)]
    )
    assert places(weighted_rrf([own], token_budget=100)) == [2, 4]
    assert weighted_rrf([own], token_budget=5) == []
    assert weighted_rrf([], token_budget=5) == []


def test_what_the_question_found_further_down_takes_what_room_is_left() -> None:
    rankings = [ranking(1, 2, 3, 4, 5, 6), ranking(20, 21, 22, 23, weight=0.7)]
    assert places(weighted_rrf(rankings, token_budget=1000, depth=2, k=6)) == [1, 2, 3, 4, 20, 21]


def test_coverage_takes_from_places_that_nothing_was_taken_of() -> None:
    rankings = [ranking(50, 51, 52, 90), ranking(10, weight=0.99)]
    assert places(weighted_rrf(rankings, token_budget=30, depth=4)) == [10, 50, 51]
    assert places(weighted_rrf(rankings, token_budget=30, depth=4, spread=True)) == [10, 50, 90]


def test_documents_stay_together_in_the_order_of_their_best() -> None:
    fact = Hit(Memory(namespace=("b",), key="fact", text=""), 1.0)
    hits = [passage(3, book="b"), fact, passage(5, book="a"), passage(1, book="b"), passage(0, book="a")]
    assert [hit.memory.key for hit in in_document_order(hits)] == ["b1", "b3", "fact", "a0", "a5"]


def test_priors_prefer_the_new_and_the_same_session() -> None:
    newest, here = priors([Ranking([passage(1), passage(3, book="now"), passage(2)])], "now")
    assert (places(list(newest.hits)), places(list(here.hits))) == ([3, 2, 1], [3])
    assert priors([ranking(1)], None)[1].hits == []
    undated = Hit(Memory(namespace=("b",), key="x", text=""), 1.0)
    assert priors([Ranking([undated, passage(1)])], None)[0].hits[-1] is undated


@pytest.mark.parametrize(
    ("hits", "held"),
    [
        ([], False),
        ([passage(1, cosine=0.2)], False),
        ([passage(1, cosine=0.2), passage(2, cosine=0.3)], True),
        ([passage(1, cosine=None)], False),
        ([Hit(passage(1).memory, 1.0, None, 2.5)], True),
    ],
)
def test_a_guess_is_supported_by_something_like_it(hits: list[Hit], held: bool) -> None:
    assert supported(hits, 0.3) is held
