"""Whose memory, which store, which thread, and when: read once a step from the run's runtime and config."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from langgraph.config import get_config
from langgraph.runtime import Runtime, get_runtime
from langgraph.store.base import BaseStore

from memgraph_plugin.errors import ConfigurationError, MemoryNotFound, MissingNamespaceError
from memgraph_plugin.state import read_field
from memgraph_plugin.store.base import MemoryStore
from memgraph_plugin.types import MemoryVersion, Namespace


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
        ConfigurationError: no store, one without memory operations, a namespace label that cannot work, or a
            request that names somebody else than the server authenticated.
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
        namespace=(
            check_labels(namespace)
            if namespace is not None
            else namespace_of(context, configurable, _authenticated(runtime, configurable))
        ),
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


def namespace_of(context: object, configurable: Mapping[str, Any], identity: str | None = None) -> Namespace:
    """The namespace of a run: from its context, then from `config["configurable"]`; never a shared default.

    Both of them a server takes from the request. Where it has authenticated who sends it (`identity`), the
    request may name that user or nobody, and a namespace of that user's alone.

    Raises:
        MissingNamespaceError: neither says whose memory this is.
        ConfigurationError: a label is empty or has a dot or a NUL, or names somebody else.
    """
    namespace, user = read_field(context, "namespace"), read_field(context, "user_id")
    named = [configurable.get(name) for name in ("user_id", "langgraph_user_id")]
    users = [str(each) for each in (user, *named) if each is not None]
    if not identity:
        if namespace is not None:
            return check_labels(namespace)
        if not users:
            raise MissingNamespaceError
        return user_namespace(users[0])
    own = user_namespace(identity)
    if any(each != identity for each in users):
        raise ConfigurationError(
            "The request names another user than the one that the server authenticated: leave `user_id` out."
        )
    if namespace is None:
        return own
    if (asked := check_labels(namespace))[: len(own)] != own:
        raise ConfigurationError(
            f"The request names a namespace outside of {own}, which the server authenticated: leave it out, "
            "or give `namespace` where the graph or the middleware is built."
        )
    return asked


def user_namespace(user_id: str) -> Namespace:
    """Where a user's memories are: ("memories", user_id), with "%2E" for each dot, as e-mail addresses have.

    Labels cannot have dots. No two users share a namespace: the "%" of what already reads "%2E" or "%25" is
    escaped, too.

    Raises:
        ConfigurationError: the id is empty or has a NUL.
    """
    return check_labels(("memories", re.sub(r"%(?=2E|25)", "%25", user_id).replace(".", "%2E")))


def documents_scope(runtime: Runtime[Any] | None, *, namespace: Sequence[str] | None = None) -> Scope:
    """The scope of a step that works on documents: the given namespace, else `documents_in` the run's own.

    Raises:
        ConfigurationError, MissingNamespaceError: as `scope_of`.
    """
    scope = scope_of(runtime, namespace=namespace)
    return scope if namespace is not None else replace(scope, namespace=documents_in(scope.namespace))


def documents_in(namespace: Namespace) -> Namespace:
    """Where the documents of a namespace are: below it, so that they go where it goes, and flood no talk."""
    return (*namespace, "documents")


def examples_scope(runtime: Runtime[Any] | None, *, namespace: Sequence[str] | None = None) -> Scope:
    """The scope of a step that works on pairs: the given namespace, else `examples_in` the run's own.

    Raises:
        ConfigurationError, MissingNamespaceError: as `scope_of`.
    """
    scope = scope_of(runtime, namespace=namespace)
    return scope if namespace is not None else replace(scope, namespace=examples_in(scope.namespace))


def examples_in(namespace: Namespace) -> Namespace:
    """Where the pairs of a namespace are (Selfmem): below it, as its documents are."""
    return (*namespace, "examples")


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
                "characters (`user_namespace` makes one of a user id that has dots)."
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


def _authenticated(runtime: Runtime[Any] | None, configurable: Mapping[str, Any]) -> str | None:
    """Who the server says it is, by keys that no request can set; None where nobody was authenticated."""
    info = runtime.server_info if runtime else None
    if info and info.user and info.user.identity:
        return str(info.user.identity)
    identity = configurable.get("langgraph_auth_user_id")
    return str(identity) if identity else None


def _say_nothing(_: Any) -> None:
    pass


def history(scope: Scope, key: str | None) -> list[MemoryVersion]:
    """The versions of a memory, oldest first; none of what never was, or was erased."""
    try:
        return scope.store.history(scope.namespace, key) if key else []
    except MemoryNotFound:
        return []


async def ahistory(scope: Scope, key: str | None) -> list[MemoryVersion]:
    """Async twin of `history`."""
    try:
        return await scope.store.ahistory(scope.namespace, key) if key else []
    except MemoryNotFound:
        return []
