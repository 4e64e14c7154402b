from datetime import UTC, datetime

import pytest

from memgraph_plugin.store.postgres import PostgresMemoryStore
from memgraph_plugin.types import Delete, Insert, Update
from tests.test_cli import call

ANA = ("memories", "ana")


@pytest.fixture
def moved(dsn: str) -> str:
    """Ana's memory, where she moved, and took up an instrument."""
    with PostgresMemoryStore(dsn) as store:
        store.apply(
            ANA,
            [
                Insert(key="home", text="Ana lives in Faro", valid_from=datetime(2020, 3, 1, tzinfo=UTC)),
                Insert(key="pet", text="Ana owns a cat"),
            ],
            actor="ana",
            policy="rules",
        )
        store.apply(
            ANA,
            [
                Update(
                    key="home", text="Ana lives in Tavira", mode="supersede",
                    valid_from=datetime(2021, 6, 1, tzinfo=UTC),
                ),
                Insert(key="music", text="Ana plays the accordion"),
                Delete(key="pet"),
            ],
        )  # fmt: skip
    return dsn


def batches(dsn: str) -> list[str]:
    with PostgresMemoryStore(dsn) as store:
        return [batch.batch_id for batch in store.log(ANA)]


def test_search_reads_the_past(moved: str) -> None:
    assert "Tavira" in call(moved, "search", "--user", "ana", "lives").stdout
    then = call(moved, "search", "--user", "ana", "lives", "--as-of", "2020-09-01").stdout
    assert "Faro" in then
    assert "until 2021-06-01" in then
    before = call(moved, "search", "--user", "ana", "lives", "--as-of", "2019-01-01").stdout
    assert before == "Nothing is remembered of ana of then.\n"
    untold = call(moved, "search", "--user", "ana", "", "--known-at", "2020-09-01T12:00+01:00").stdout
    assert untold == before
    wrong = call(moved, "search", "--user", "ana", "", "--as-of", "last week")
    assert wrong.exit_code == 1
    assert "--as-of is a date" in wrong.stderr


def test_history_shows_when_it_was_so(moved: str) -> None:
    shown = call(moved, "history", "--user", "ana", "home").stdout
    assert "from 2020-03-01 until 2021-06-01" in " ".join(shown.replace("│", " ").split())
    assert "from 2021-06-01" in shown


def test_the_log_lists_batches_with_their_ids(moved: str) -> None:
    last, first = batches(moved)
    shown = call(moved, "log", "--user", "ana").stdout
    assert shown.index(last[:8]) < shown.index(first[:8])
    assert "2 inserted" in shown
    assert "1 updated" in shown
    assert "rules" in shown
    assert first[:8] not in call(moved, "log", "--user", "ana", "-n", "1").stdout
    assert call(moved, "log", "--user", "bob").stdout == "Nothing was ever remembered of bob.\n"


def test_undo_shows_what_it_will_do_and_asks(moved: str) -> None:
    last = batches(moved)[0]
    asked = call(moved, "undo", "--user", "ana", last, stdin="n\n")
    assert asked.exit_code == 1
    for line in ("~ Ana lives in Faro", "- Ana plays the accordion", "+ Ana owns a cat"):
        assert f"  {line}\n" in asked.stdout
    assert len(batches(moved)) == 2
    done = call(moved, "undo", "--user", "ana", last[:13], stdin="y\n").stdout
    assert "Took back 3 of 3" in done
    assert "Faro" in call(moved, "search", "--user", "ana", "lives").stdout
    assert "undo, as 1" in call(moved, "history", "--user", "ana", "home").stdout
    again = call(moved, "undo", "--user", "ana", last, "--yes")
    assert again.exit_code == 1
    assert "home: was changed since, and stays as it is" in again.stdout
    assert "home: the memory has changed" in again.stderr
    assert "Took back 3 of 3" in call(moved, "undo", "--user", "ana", batches(moved)[1], "--yes").stdout


def test_undo_of_what_is_not_there_says_so(moved: str) -> None:
    for batch, said in (("f" * 36, "No batch of this user's begins"), ("", "2 batches of this user's begin")):
        result = call(moved, "undo", "--user", "ana", batch, "--yes")
        assert result.exit_code == 1
        assert said in result.stderr
    with PostgresMemoryStore(moved) as store:
        nothing = store.apply(ANA, [Delete(key="no")])
    assert call(moved, "undo", "--user", "ana", nothing.batch_id).stdout == "That batch changed nothing.\n"
