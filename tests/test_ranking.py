import math
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memgraph_plugin.store.ranking import LIFTING, bm25, fuse, lexemes, within_budget
from memgraph_plugin.tokens import estimate_tokens
from memgraph_plugin.types import Hit, Memory


def counted(text: str) -> dict[str, int]:
    words = lexemes(text)
    return {word: words.count(word) for word in words}


def test_inflected_words_share_a_lexeme() -> None:
    assert lexemes("She was RUNNING") == lexemes("runs") == ["run"]


def test_simple_stems_nothing_and_keeps_every_word() -> None:
    assert lexemes("She was running", "simple") == ["she", "was", "running"]


def test_other_languages_have_their_own_stemmer() -> None:
    assert lexemes("Häuser", "german") == lexemes("Haus", "german")
    assert lexemes("Katzen", "klingon") == ["katzen"]


def test_chinese_japanese_and_korean_become_overlapping_pairs_in_every_language() -> None:
    assert lexemes("我喜欢猫 ok") == ["我喜", "喜欢", "欢猫", "ok"]
    assert lexemes("猫", "simple") == ["猫"]
    assert lexemes("Tokyo東京タワー2号", "german") == ["tokyo", "東京", "京タ", "タワ", "ワー", "2", "号"]
    assert lexemes("한국어") == ["한국", "국어"]


def test_threads_may_stem_together() -> None:
    words = [f"generalization{i} nationalities{i} running" for i in range(200)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lexemes, words)) == [lexemes(text) for text in words]


def test_bm25_is_the_formula() -> None:
    documents = [{"cat": 2, "dog": 1}, {"dog": 1}, {"bird": 4}]
    idf = math.log(1 + (3 - 1 + 0.5) / (1 + 0.5))
    expected = idf * 2 * 2.2 / (2 + 1.2 * (1 - 0.75 + 0.75 * 2 / (4 / 3)))
    assert bm25(["cat", "cat"], documents) == pytest.approx([expected, 0.0, 0.0])


def test_a_rare_word_weighs_more_than_a_common_one() -> None:
    documents = [counted(text) for text in ("tea and honey", "tea and milk", "tea and jam")]
    scores = bm25(lexemes("tea with honey"), documents)
    assert scores[0] > scores[1] == scores[2] > 0


def test_bm25_of_nothing_is_nothing() -> None:
    assert bm25(["cat"], []) == []
    assert bm25(["cat"], [{}, {}]) == [0.0, 0.0]
    assert bm25([], [{"cat": 1}]) == [0.0]


def test_fusion_sums_the_z_scores_of_both_rankers() -> None:
    scores = fuse([0.2, 0.4], [0.0, 3.0], [None, None], [None, None])
    assert scores == pytest.approx([-2.0, 2.0])


def test_a_ranker_without_an_opinion_adds_nothing() -> None:
    assert fuse([0.1, 0.1, 0.1], [0.0, 0.0, 3.0], [None] * 3, [None] * 3)[2] == pytest.approx(math.sqrt(2))
    assert fuse([None, 0.5], [1.0, 1.0], [None] * 2, [None] * 2) == [0.0, 0.0]


def test_a_good_row_lifts_those_near_it_in_its_session_and_no_others() -> None:
    bare = fuse([None] * 6, [9.0, 0, 0, 0, 0, 0], [None] * 6, [None] * 6)
    lifted = fuse([None] * 6, [9.0, 0, 0, 0, 0, 0], ["s"] * 4 + ["other", None], [2, 1, 4, 5, 3, None])
    high, low = bare[0], bare[1]
    assert lifted == pytest.approx([high, low + 0.40 * high, low + 0.15 * high, low, low, low])


def test_only_the_best_rows_lift_their_neighbours() -> None:
    words = [float(i) for i in range(3 * LIFTING)]
    alone = fuse([None] * len(words), words, [None] * len(words), [None] * len(words))
    placed = fuse([None] * len(words), words, ["s"] * len(words), [3 * i for i in range(len(words))])
    assert placed == alone
    in_a_row = fuse([None] * len(words), words, ["s"] * len(words), list(range(len(words))))
    lifted = [row for row in range(len(words)) if in_a_row[row] != alone[row]]
    assert lifted == list(range(len(words) - LIFTING - 2, len(words)))


def test_a_budget_takes_in_order_what_still_fits() -> None:
    hits = [Hit(Memory(namespace=("a",), key=str(n), text="", tokens=n), 0.0) for n in (5, 7, 2, 9, 3)]
    assert [hit.memory.tokens for hit in within_budget(hits, 10)] == [5, 2, 3]
    assert within_budget(hits, None) == hits
    assert within_budget(hits, 0) == []


def test_tokens_are_four_latin_characters_or_one_cjk_letter() -> None:
    assert [estimate_tokens(text) for text in ("", "a", "abcd", "abcde", "東京タワー", "東京 ok")] == [
        0,
        1,
        1,
        2,
        5,
        3,
    ]


@given(st.lists(st.tuples(st.floats(-1, 1) | st.none(), st.floats(0, 50), st.sampled_from(["s", "t", None]))))
def test_every_score_is_finite(rows: list[tuple[float | None, float, str | None]]) -> None:
    cosines, words, sessions = ([row[i] for row in rows] for i in range(3))
    scores = fuse(cosines, words, sessions, list(range(len(rows))))  # type: ignore[arg-type]
    assert len(scores) == len(rows)
    assert all(math.isfinite(score) for score in scores)


@given(st.text())
def test_any_text_has_lexemes(text: str) -> None:
    assert all(lexemes(text))


def test_compounds_and_names_are_read_as_postgres_reads_them() -> None:
    found = lexemes("local-socket over TCP/IP, see pg_hba.conf and -f/--file; e.g. 1.5 times.")
    assert found == [
        *(
            "local-socket",
            "local",
            "socket",
            "tcp/ip",
            "see",
            "pg_hba.conf",
            "f",
            "file",
            "e.g",
            "1.5",
            "time",
        )
    ]
