"""The values that travel: what a memory is, what may be done to one, and what was done. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import scrypt
from typing import Any, Literal, TypeAlias

Namespace: TypeAlias = tuple[str, ...]

MemoryKind: TypeAlias = Literal["core", "semantic", "episodic", "turn", "passage", "self"]
"""core: the profile · semantic: a fact · episodic: a dated event · turn: a verbatim message ·
passage: a chunk of a document · self: a hypothesis of the model's own (Selfmem)."""

UpdateMode: TypeAlias = Literal["correct", "refine", "supersede"]
"""correct: it was never so · refine: the same, said better · supersede: it was so, and no longer is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """One remembered item, as it stands now. `value` is the caller's JSON; `text` is what search reads."""

    namespace: Namespace
    key: str
    text: str
    kind: MemoryKind = "semantic"
    value: Mapping[str, Any] = field(default_factory=dict)
    version: int = 1
    session: str | None = None
    position: int | None = None
    importance: float = 0.5
    tokens: int = 0
    source: str = ""
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """A memory found by `recall`, best first.

    `score` is the fused score: standard deviations above the mean of what was searched, and what good
    neighbours in the session lend. `cosine` (-1..1) and `bm25` (0..) are its parts, None where that ranker
    had nothing to go by.
    """

    memory: Memory
    score: float
    cosine: float | None = None
    bm25: float | None = None


ClueKind: TypeAlias = Literal["span", "question", "entity", "draft"]
"""span: a sentence as the source may have it · question: one that asks more precisely · entity: a name or a
date · draft: an answer from memory alone."""


@dataclass(frozen=True, slots=True)
class Clue:
    """What a memory model recalls that may point at evidence. It is no evidence itself, and often inexact."""

    kind: ClueKind
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A source and what was made of it: a pair of a corpus, or a draft of the model's own (Selfmem)."""

    source: str
    target: str
    key: str = ""
    origin: Literal["corpus", "self"] = "corpus"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a generator is asked to do in one round; there is no place in it for a reference.

    Args:
        source: what is to be translated, shortened, replied to.
        memory: the one text that it may lean on: at first the target of the nearest example, from then on a
            candidate of its own; "" for none.
        examples: what was retrieved for it, nearest first.
        round: 0 where the memory was retrieved.
    """

    source: str
    memory: str = ""
    examples: tuple[Example, ...] = ()
    round: int = 0


@dataclass(frozen=True, slots=True)
class Candidate:
    """One of several outputs for a source.

    Args:
        text: the output.
        logprob: mean log probability of its tokens, in nats; None where the model does not tell.
    """

    text: str
    logprob: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryVersion:
    """One line of a memory's history: what it was, and what made it so. `memory` is None once deleted.

    `superseded_by` is the version that came true after this one; `memory.valid_to` is when. `restores` is the
    version that an undo went back to.
    """

    key: str
    version: int
    memory: Memory | None
    operation: Literal["insert", "update", "delete"]
    mode: UpdateMode | None = None
    reason: str = ""
    actor: str = ""
    policy: str = ""
    evidence: tuple[str, ...] = ()
    batch_id: str = ""
    recorded_at: datetime | None = None
    superseded_by: int | None = None
    restores: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One message of a conversation, as it was said. `key` is the key of its memory of kind `turn`."""

    key: str
    role: Literal["user", "assistant"]
    text: str
    at: datetime
    speaker: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A text to be remembered. `id` names it among all (a file's path), `name` is what is cited.

    `pages` are its text, one where it has no pages; they have numbers, from 1, where it is `paged`.
    """

    id: str
    name: str
    pages: tuple[str, ...]
    paged: bool = False

    @property
    def text(self) -> str:
        return "\n\n".join(self.pages)


@dataclass(frozen=True, slots=True, kw_only=True)
class Insert:
    """Remember something new. `key` is made by the store where None, and `embedding` of the text.

    `valid_from` and `valid_to` say when it is so in the world: from the one until just before the other.
    Unknown is None: from when it was told, and without an end.
    """

    text: str
    kind: MemoryKind = "semantic"
    key: str | None = None
    value: Mapping[str, Any] = field(default_factory=dict)
    session: str | None = None
    position: int | None = None
    importance: float = 0.5
    source: str = ""
    language: str | None = None
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    expires_at: datetime | None = None
    evidence: tuple[str, ...] = ()
    reason: str = ""
    embedding: Sequence[float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """Change a memory: a new version under the same key; the old one stays in its history.

    `version` is the version that was read; where it is no longer current, the operation is rejected.
    `value`, `importance`, `valid_from` and `valid_to` stay as they were where None; but what supersedes is so
    from now on and without an end, where it does not say otherwise.
    """

    key: str
    text: str
    mode: UpdateMode = "correct"
    version: int | None = None
    value: Mapping[str, Any] | None = None
    importance: float | None = None
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    evidence: tuple[str, ...] = ()
    reason: str = ""
    embedding: Sequence[float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """Forget one memory: gone from recall, kept in history."""

    key: str
    version: int | None = None
    evidence: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoOp:
    """Decide that there is nothing to remember, and say why."""

    reason: str = "nothing_new"
    evidence: tuple[str, ...] = ()


Operation: TypeAlias = Insert | Update | Delete | NoOp

OperationName: TypeAlias = Literal["insert", "update", "delete", "noop"]

OPERATION_NAMES: Mapping[type, OperationName] = {
    Insert: "insert",
    Update: "update",
    Delete: "delete",
    NoOp: "noop",
}


def name_of(operation: Operation) -> OperationName:
    """What receipts call an operation."""
    return OPERATION_NAMES.get(type(operation), "noop")


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """An operation that was refused for safety, and waits in quarantine to be released or discarded.

    `code` and `reason` say why. The store adds an id, the policy that proposed it, and since when it waits.
    """

    operation: Insert | Update | Delete
    code: str
    reason: str = ""
    id: str = ""
    policy: str = ""
    recorded_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What became of one operation. `code` is set where `status` is "rejected"."""

    operation: Literal["insert", "update", "delete", "noop"]
    status: Literal["applied", "unchanged", "rejected"]
    key: str | None = None
    version: int | None = None
    code: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Receipts:
    """What became of a batch, in the order of its operations. `replayed`: it had been applied before."""

    batch_id: str
    receipts: tuple[Receipt, ...]
    replayed: bool = False

    @property
    def applied(self) -> tuple[Receipt, ...]:
        return tuple(receipt for receipt in self.receipts if receipt.status == "applied")

    @property
    def rejected(self) -> tuple[Receipt, ...]:
        return tuple(receipt for receipt in self.receipts if receipt.status == "rejected")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedBatch:
    """One line of the log: a batch, whoever sent it, and what became of its operations."""

    batch_id: str
    receipts: tuple[Receipt, ...]
    recorded_at: datetime
    actor: str = ""
    policy: str = ""

    @property
    def applied(self) -> tuple[Receipt, ...]:
        return tuple(receipt for receipt in self.receipts if receipt.status == "applied")


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """The receipt of `forget`: that a namespace was erased, without its name, and what was erased by table.

    `digest` is scrypt of the name with `salt`, both in hex. Slow on purpose: a name can be guessed (a number,
    an address of mail), and whoever reads the receipts should not learn cheaply whose they are.
    """

    id: str
    salt: str
    digest: str
    counts: Mapping[str, int]
    erased_at: datetime
    actor: str = ""

    def of(self, namespace: Namespace) -> bool:
        """Whether this is the receipt of this namespace, or of one above it. Takes some 50 ms a label."""
        depths = range(1, len(namespace) + 1)
        return any(erasure_digest(namespace[:depth], self.salt) == self.digest for depth in depths)


def erasure_digest(namespace: Namespace, salt: str) -> str:
    """What an `Erasure` keeps in place of the namespace (RFC 7914, N = 2**14, r = 8, p = 1), in hex."""
    name = ".".join(namespace).encode()
    return scrypt(name, salt=bytes.fromhex(salt), n=2**14, r=8, p=1, dklen=32).hex()


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What `import_` wrote; how many entries were there already, and of how many texts it made vectors."""

    batches: int = 0
    versions: int = 0
    memories: int = 0
    held: int = 0
    skipped: int = 0
    embedded: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class KVRecord:
    """A compressed memory (a model's keys and values of a text) without its windows: see `save_kv`.

    `header` is the caller's JSON. `version` is another one after each save, and never again one that was
    deleted under this key. `windows` are so many, and have `bytes` together.
    """

    namespace: Namespace
    key: str
    header: Mapping[str, Any]
    version: int
    windows: int
    bytes: int
    updated_at: datetime
