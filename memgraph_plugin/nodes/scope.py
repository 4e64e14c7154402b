"""Whose memory, which store, which thread, and when: read once a step from the run's runtime and config."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from langgraph.config import get_config
from langgraph.runtime import Runtime, get_runtime
from langgraph.store.base import BaseStore

from memgraph_plugin.errors import ConfigurationError, MissingNamespaceError
from memgraph_plugin.state import read_field
from memgraph_plugin.store.base import MemoryStore
from memgraph_plugin.types import Namespace


@dataclass(frozen=True)
class Scope:
    """What a step needs to know of its run. `emit` sends a custom stream event."""

    store: MemoryStore
    namespace: Namespace
    thread: str | None
    session: str | None
    now: datetime
    emit: Callable[[Any], None]


def scope_of(
    runtime: Runtime[Any] | None,
    *,
    store: BaseStore | None = None,
    namespace: Sequence[str] | None = None,
) -> Scope:
    """The scope of a run; a `store` or `namespace` given here goes before the run's own.

    Raises:
        ConfigurationError: no store, one without memory operations, or a namespace label that cannot work.
        MissingNamespaceError: nobody said whose memory this is.
    """
    context = runtime.context if runtime else None
    configurable = _configurable()
    thread = configurable.get("thread_id")
    if runtime and runtime.execution_info and runtime.execution_info.thread_id:
        thread = runtime.execution_info.thread_id
    session = read_field(context, "session_id")
    thread = session if thread is None else str(thread)
    return Scope(
        store=memory_store(store if store is not None else runtime.store if runtime else None),
        namespace=check_labels(namespace) if namespace is not None else namespace_of(context, configurable),
        thread=thread,
        session=session or thread,
        now=time_of(read_field(context, "now")),
        emit=runtime.stream_writer if runtime else _say_nothing,
    )


def running_scope(*, store: BaseStore | None = None, namespace: Sequence[str] | None = None) -> Scope:
    """The scope of the run that this is called in, if any: for tools and retrievers, called by hand too.

    Raises:
        ConfigurationError, MissingNamespaceError: as `scope_of`.
    """
    try:
        runtime = get_runtime()
    except RuntimeError:
        runtime = None
    return scope_of(runtime, store=store, namespace=namespace)


def memory_store(store: BaseStore | None) -> MemoryStore:
    """The same store, known to have memory operations.

    Raises:
        ConfigurationError: there is none, or it has none.
    """
    if store is None:
        raise ConfigurationError("No store: compile the graph with store=..., or pass store=... here.")
    if not isinstance(store, MemoryStore):
        raise ConfigurationError(
            f"{type(store).__name__} has no memory operations (apply, recall, history): use one "
            "of memgraph_plugin's stores, for instance InMemoryMemoryStore."
        )
    return store


def namespace_of(context: object, configurable: Mapping[str, Any]) -> Namespace:
    """The namespace of a run: from its context, then from `config["configurable"]`; never a shared default.

    Raises:
        MissingNamespaceError: neither says whose memory this is.
        ConfigurationError: a label is empty or has a dot or a NUL.
    """
    if (namespace := read_field(context, "namespace")) is not None:
        return check_labels(namespace)
    user = read_field(context, "user_id")
    for name in ("user_id", "langgraph_user_id"):
        if user is None:
            user = configurable.get(name)
    if user is None:
        raise MissingNamespaceError
    return check_labels(("memories", str(user)))


def check_labels(namespace: Sequence[str]) -> Namespace:
    """The namespace as a tuple of labels that every store can keep.

    Raises:
        MissingNamespaceError: there is no label.
        ConfigurationError: a label is empty or has a dot or a NUL; the message names it.
    """
    if isinstance(namespace, str):
        raise ConfigurationError(f"A namespace is a tuple of labels, not the string {namespace!r}.")
    if not namespace:
        raise MissingNamespaceError
    for label in namespace:
        if not isinstance(label, str) or not label.strip() or "." in label or "\0" in label:
            raise ConfigurationError(
                f"{label!r} cannot be a namespace label: it must be a non-empty string without dots and NUL "
                "characters (write an e-mail address without its dots, or use an id)."
            )
    return tuple(namespace)


def time_of(now: datetime | str | None) -> datetime:
    """A turn's time with its zone, UTC where none is given; the clock's where there is no time.

    Raises:
        ConfigurationError: a text is not an ISO 8601 time.
    """
    if now is None:
        return datetime.now(UTC)
    if isinstance(now, str):
        try:
            now = datetime.fromisoformat(now)
        except ValueError as error:
            raise ConfigurationError(f"now={now!r} is not an ISO 8601 time.") from error
    return now if now.tzinfo else now.replace(tzinfo=UTC)


def _configurable() -> Mapping[str, Any]:
    try:
        return get_config().get("configurable", {})
    except RuntimeError:  # outside a run: a tool or a retriever called by hand
        return {}


def _say_nothing(_: Any) -> None:
    pass
