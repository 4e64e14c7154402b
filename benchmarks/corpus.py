"""Memories and questions to measure with: users' conversations in sessions, and vectors made beforehand.

Sentences come from a vocabulary whose words are as unequally frequent as in a language (Zipf), or from
LoCoMo's conversations. The vectors are no model's; they are clustered, as a model's are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.embeddings import Embeddings

DIMENSION = 384
SESSION = 20
"""Turns in a session."""

CLUSTERS = 500
WORDS = 12_000
# fmt: off
FREQUENT = (
    "the", "to", "and", "a", "i", "of", "it", "you", "that", "in", "was", "is", "my", "for", "on",
    "with", "have", "but", "so", "me", "this", "at", "we", "be", "are", "not", "they", "just",
    "about", "like", "do", "what", "your", "up", "had", "all", "get", "when", "there", "out", "one",
    "if", "really", "as", "from", "or", "can", "been", "go", "time", "good", "would", "will", "he",
    "she", "her", "him", "how", "our", "some", "more", "them", "then", "think", "know", "going",
    "see", "an", "new", "did", "has", "were", "make", "love", "also", "much", "by", "work", "great",
    "now", "day", "very", "us", "other", "after", "feel", "back", "got", "who", "only",
)
NAMES = ("Anna", "Ben", "Clara", "David", "Elena", "Frank", "Grace", "Hugo", "Iris", "Jonas", "Karen", "Leo")
CONSONANTS = ("b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "ch", "st", "tr")
# fmt: on

Namespace = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Turn:
    namespace: Namespace
    key: str
    session: str
    position: int
    text: str
    vector: np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Question:
    namespace: Namespace
    text: str
    vector: list[float]


@dataclass(frozen=True, slots=True)
class Corpus:
    """`turns` in the order of their writing: every user's first session, then every user's second ..."""

    turns: list[Turn]
    questions: list[Question]
    description: str
    session: int

    def sessions(self) -> Iterator[list[Turn]]:
        for start in range(0, len(self.turns), self.session):
            yield self.turns[start : start + self.session]


class Given(Embeddings):
    """Vectors made beforehand, so that making them is nobody's time."""

    def __init__(self, vectors: Mapping[str, Any], dimension: int = DIMENSION) -> None:
        self.vectors = vectors
        self.dimension = dimension
        self.name = f"given:{dimension}"

    def embed_query(self, text: str) -> list[float]:
        vector = self.vectors.get(text)
        if vector is None:  # a store may ask for the dimension
            return [1.0] + [0.0] * (self.dimension - 1)
        return vector if isinstance(vector, list) else list(vector.tolist())

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]


def build(
    rows: int,
    namespaces: int,
    questions: int,
    seed: int,
    data: Path | None,
    length: int = SESSION,
    dimension: int = DIMENSION,
) -> Corpus:
    """`rows` turns in `namespaces` equal parts, each of whole sessions, and `questions` spread over them."""
    rng = np.random.default_rng(seed)
    each = rows // namespaces
    if rows % namespaces or each % length:
        raise SystemExit(f"--rows must be a multiple of {namespaces * length:,}")
    said, asked, source = _generated(rng, rows, each) if data is None else _locomo(data, rows)
    vectors = _vectors(rng, rows, dimension)
    turns = []
    for session in range(each // length):
        for user in range(namespaces):
            for position in range(length):
                i = user * each + session * length + position
                name = f"session-{session:03d}"
                turns.append(
                    Turn(
                        ("memories", f"user-{user:04d}"),
                        f"{name}-{position:02d}",
                        name,
                        position,
                        said[i],
                        vectors[i],
                    )
                )
    made = [_question(rng, i % namespaces, each, said, asked, vectors) for i in range(questions)]
    mean = sum(len(text.split()) for text in said) / rows
    mean_asked = sum(len(question.text.split()) for question in made) / questions
    return Corpus(
        turns,
        made,
        f"{rows:,} turns of {mean:.0f} words {source}, {namespaces} namespaces of {each:,}, "
        f"sessions of {length} turns written in turn; {questions} questions of {mean_asked:.0f} words; "
        f"vectors of {dimension} dimensions in {CLUSTERS} clusters, given; seed {seed}",
        length,
    )


def _generated(rng: np.random.Generator, rows: int, each: int) -> tuple[Sequence[str], None, str]:
    syllables = [c + v for c in CONSONANTS for v in "aeiou"]
    invented = {"".join(rng.choice(syllables, size=rng.integers(2, 5))) for _ in range(WORDS)}
    words = np.array([*FREQUENT, *sorted(invented)])
    weights = 1 / (np.arange(len(words)) + 2.7)
    lengths = np.clip(rng.normal(25, 9, rows).astype(int), 4, 70)
    drawn = rng.choice(words, size=int(lengths.sum()), p=weights / weights.sum())
    speakers = rng.integers(0, len(NAMES), size=(rows // each, 2))
    said, start = [], 0
    for i, length in enumerate(lengths):
        speaker = NAMES[speakers[i // each][i % 2]]
        said.append(f"{speaker}: {' '.join(drawn[start : start + length])}.")
        start += length
    return said, None, f"from {len(words):,} words (Zipf)"


def _locomo(path: Path, rows: int) -> tuple[Sequence[str], Sequence[Sequence[str]], str]:
    """Texts, the questions that LoCoMo has on the conversation of each, and what they are."""
    said: list[str] = []
    asked: list[list[str]] = []
    for sample in json.loads(path.read_text()):
        talk = sample["conversation"]
        numbers = sorted(int(name.split("_")[1]) for name in talk if name.split("_")[-1].isdigit())
        said += [f"{turn['speaker']}: {turn['text']}" for n in numbers for turn in talk[f"session_{n}"]]
        asked += [[each["question"] for each in sample["qa"]]] * (len(said) - len(asked))
    turns = [i % len(said) for i in range(rows)]
    source = f"of {path.name} ({len(said):,}, repeated)"
    return [said[i] for i in turns], [asked[i] for i in turns], source


def _question(
    rng: np.random.Generator,
    user: int,
    each: int,
    said: Sequence[str],
    asked: Sequence[Sequence[str]] | None,
    vectors: np.ndarray[Any, Any],
) -> Question:
    """About one memory of the user: near its vector, with four of its words, and at times its speaker."""
    about = user * each + int(rng.integers(each))
    near = vectors[about] + 0.8 * _unit(rng.normal(size=(1, vectors.shape[1])))[0]
    vector = _unit(near[None])[0].astype(np.float32).tolist()
    if asked is not None:
        text = str(rng.choice(asked[about]))
    else:
        speaker, _, rest = said[about].partition(": ")
        telling = [word for word in rest.strip(".").split() if word not in FREQUENT] or ["nothing"]
        kept = rng.choice(telling, size=min(4, len(telling)), replace=False)
        who = speaker if rng.random() < 0.5 else str(rng.choice(FREQUENT))
        text = " ".join([*rng.choice(FREQUENT[:40], size=3), who, *kept]) + "?"
    return Question(("memories", f"user-{user:04d}"), text, vector)


def _vectors(rng: np.random.Generator, rows: int, dimension: int) -> np.ndarray[Any, Any]:
    centres = _unit(rng.normal(size=(CLUSTERS, dimension)))
    members = rng.integers(CLUSTERS, size=rows)
    vectors = np.empty((rows, dimension), dtype=np.float32)
    for start in range(0, rows, 10_000):  # a million at once would not fit into memory on the way
        some = members[start : start + 10_000]
        vectors[start : start + 10_000] = _unit(
            centres[some] + 0.7 * _unit(rng.normal(size=(len(some), dimension)))
        )
    return vectors


def _unit(vectors: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    unit: np.ndarray[Any, Any] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit
