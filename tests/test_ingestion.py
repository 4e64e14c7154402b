from __future__ import annotations

import json
from pathlib import Path

import pytest

from memgraph_plugin.errors import ConfigurationError, StoreError
from memgraph_plugin.ingestion import ingest, read_conversations
from memgraph_plugin.store.postgres import PostgresMemoryStore

ADA = ("memories", "ada")

LOCOMO = [
    {
        "sample_id": "conv-1",
        "conversation": {
            "speaker_a": "Ann",
            "session_2": [{"speaker": "Ann", "dia_id": "D2:1", "text": "I moved to Porto."}],
            "session_1_date_time": "1:56 pm on 8 May, 2023",
            "session_1": [
                {"speaker": "Ann", "dia_id": "D1:1", "text": "Look!", "blip_caption": "a red boat"},
                {"speaker": "Ben", "dia_id": "D1:2", "text": "Nice."},
            ],
        },
        "qa": [{"question": "Where does Ann live?", "evidence": ["D2:1"], "category": 4}],
    }
]


def write(path: Path, *lines: object) -> Path:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def test_a_locomo_conversation_is_read_in_order_with_speakers_captions_and_times(tmp_path: Path) -> None:
    turns = read_conversations(write(tmp_path / "c.json", LOCOMO))["conv-1"]
    assert [(t.key, t.session, t.position) for t in turns] == [
        ("D1:1", "session_1", 0),
        ("D1:2", "session_1", 1),
        ("D2:1", "session_2", 0),
    ]
    assert turns[0].text == "Ann: Look! [shares a red boat]"
    assert str(turns[0].valid_from) == "2023-05-08 13:56:00+00:00"


def test_a_line_is_a_turn_and_sessions_count_for_themselves(tmp_path: Path) -> None:
    path = write(
        tmp_path / "c.jsonl",
        {"text": "I like tea.", "role": "user", "session": "a", "at": "2026-01-02T10:00:00"},
        "",
        {"content": "Noted.", "role": "assistant", "session": "a"},
        {"text": "Hello", "speaker": "Ann", "session": "b", "id": "x"},
    )
    turns = read_conversations(path)[""]
    assert [(t.key, t.text, t.source) for t in turns] == [
        ("a:0", "I like tea.", "user"),
        ("a:1", "Noted.", "assistant"),
        ("x", "Ann: Hello", "Ann"),
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"text": "fine"}\n{"text": ', "line 2 is not JSON"),
        ("a.jsonl", '{"words": "no text"}', 'line 1 has no "text"'),
        ("a.jsonl", '{"text": "x", "at": "yesterday"}', "line 1"),
        ("a.json", "[1, 2]", "LoCoMo"),
        ("a.json", "{", "not JSON"),
    ],
)
def test_a_file_of_another_form_is_refused_by_its_line(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        read_conversations(write(tmp_path / name, text))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_conversations(tmp_path / "none.jsonl")


def test_ingesting_again_writes_nothing_and_an_interrupted_run_goes_on(tmp_path: Path, dsn: str) -> None:
    path = write(tmp_path / "c.jsonl", *({"text": f"note {i}"} for i in range(150)))
    turns = read_conversations(path)[""]

    with PostgresMemoryStore(dsn) as store:

        def stop(done: int, _: int) -> None:
            if done >= 64:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            ingest(store, ADA, turns, progress=stop)
        seen: list[tuple[int, int]] = []
        assert ingest(store, ADA, turns, progress=lambda done, total: seen.append((done, total))) == 150 - 64
        assert seen == [(64, 150), (128, 150), (150, 150)]
        assert ingest(store, ADA, turns) == 0
        assert len(store.search(ADA, limit=1000)) == 150


def test_a_dead_database_is_not_taken_for_done(tmp_path: Path) -> None:
    turns = read_conversations(write(tmp_path / "c.jsonl", {"text": "note"}))[""]
    with PostgresMemoryStore(f"host={tmp_path}") as store, pytest.raises(StoreError):
        ingest(store, ADA, turns)
