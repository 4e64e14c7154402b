"""Operations that wait in quarantine: what may be held. Pure, for every store."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from memgraph_plugin.errors import InvalidValue, MemoryNotFound
from memgraph_plugin.store.storable import check_reason, check_text, storable_operations
from memgraph_plugin.types import (
    OPERATION_NAMES,
    Delete,
    Held,
    Insert,
    Namespace,
    Receipt,
    Update,
)


@dataclass(frozen=True, slots=True)
class Quarantined:
    """What is held, and where."""

    namespace: Namespace
    held: Held


def storable_held(namespace: Namespace, held: Iterable[Held]) -> list[Held]:
    """What is to be held, with values of plain JSON, copied; without vectors, which a release makes anew.

    Raises:
        InvalidNamespaceError, InvalidValue: as `MemoryStore.apply` says.
    """
    return [_storable(namespace, each, f"held[{i}]") for i, each in enumerate(held)]


def _storable(namespace: Namespace, held: Held, place: str) -> Held:
    if not isinstance(held, Held) or not isinstance(held.operation, Insert | Update | Delete):
        raise InvalidValue(f"{place} holds no operation that could be released.")
    check_text(held.code, f"{place}.code")
    check_reason(held.reason, f"{place}.reason")
    check_text(held.policy, f"{place}.policy")
    (operation,) = storable_operations(namespace, [held.operation])
    if isinstance(operation, Insert | Update):
        return replace(held, operation=replace(operation, embedding=None))
    return held


def noted(held: Sequence[Held], policy: str, now: datetime) -> tuple[Held, ...]:
    """What a batch of this policy holds from now on, under names of its own."""
    return tuple(replace(each, id=str(uuid.uuid4()), policy=policy, recorded_at=now) for each in held)


def refused(held: Held) -> Receipt:
    """The line of what is held in the receipts of its batch."""
    return Receipt(
        operation=OPERATION_NAMES[type(held.operation)],
        status="rejected",
        key=held.operation.key,
        code=held.code,
        reason=held.reason,
    )


def checked_id(id_: str) -> str:
    """The id of what is held, which is a UUID.

    Raises:
        MemoryNotFound: nothing can have this one.
    """
    try:
        return str(uuid.UUID(id_))
    except (ValueError, AttributeError, TypeError):
        raise not_held(id_) from None


def not_held(id_: str) -> MemoryNotFound:
    return MemoryNotFound(f"Nothing is held in this namespace's quarantine under {id_!r:.80}.")
