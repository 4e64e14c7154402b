"""Whose memory a run works on: ids of any make, and who may name whom."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from memgraph_plugin import InMemoryMemoryStore, MemoryContext, build_memory_graph, user_namespace
from memgraph_plugin.errors import ConfigurationError, MissingNamespaceError
from memgraph_plugin.nodes.scope import namespace_of

ODD = ["a", ".", "..", "%", "2", "E", "5", "%2E", "%25", "%2", "e", "@", "-", "_", "é", "*"]


def test_an_e_mail_address_is_a_user() -> None:
    assert user_namespace("ana@example.com") == ("memories", "ana@example%2Ecom")
    assert user_namespace("ana") == ("memories", "ana")
    assert user_namespace("100%") == ("memories", "100%")


def test_no_two_users_share_a_namespace() -> None:
    ids = {a + b + c + d for a in ODD for b in ODD for c in ODD for d in ("", *ODD)}
    assert len({user_namespace(each) for each in ids}) == len(ids)
    assert not any("." in user_namespace(each)[1] for each in ids)


@pytest.mark.parametrize(
    ("context", "configurable"),
    [
        (None, {}),
        (MemoryContext(user_id="ana"), {}),
        (MemoryContext(session_id="s"), {"user_id": "ana", "langgraph_user_id": "ana"}),
        (MemoryContext(namespace=("memories", "ana")), {}),
    ],
)
def test_a_request_may_name_whom_the_server_authenticated(
    context: object, configurable: dict[str, Any]
) -> None:
    assert namespace_of(context, configurable, "ana") == ("memories", "ana")


def test_a_request_may_name_a_part_of_its_users_namespace() -> None:
    part = ("memories", "ana@x%2Eorg", "work")
    assert namespace_of({"namespace": part}, {}, "ana@x.org") == part


@pytest.mark.parametrize(
    ("context", "configurable"),
    [
        (MemoryContext(user_id="bo"), {}),
        ({"user_id": ""}, {}),
        ({"user_id": "Ana"}, {}),
        (MemoryContext(user_id="ana"), {"user_id": "bo"}),
        (None, {"langgraph_user_id": "bo"}),
        (MemoryContext(namespace=("memories", "bo")), {}),
        (MemoryContext(namespace=("memories",)), {}),
        (MemoryContext(namespace=("bo", "memories", "ana")), {}),
        (MemoryContext(namespace=("memories", "ana2")), {}),
        (MemoryContext(user_id="bo", namespace=("memories", "ana")), {}),
    ],
)
def test_a_request_may_name_nobody_else(context: object, configurable: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="authenticated"):
        namespace_of(context, configurable, "ana")


@pytest.mark.parametrize("identity", [None, ""])
def test_without_authentication_the_request_is_believed(identity: str | None) -> None:
    assert namespace_of({"user_id": 7}, {}, identity) == ("memories", "7")
    with pytest.raises(MissingNamespaceError):
        namespace_of(None, {}, identity)


@pytest.mark.parametrize("key", ["langgraph_auth_user", "langgraph_auth_user_id"])
def test_a_graph_works_for_the_authenticated_user(key: str) -> None:
    user = SimpleNamespace(identity="ana@x.org", is_authenticated=True, display_name="ana")
    config = {"configurable": {key: user if key == "langgraph_auth_user" else user.identity}}
    store = InMemoryMemoryStore()
    graph = build_memory_graph(None).compile(store=store)
    graph.invoke({"messages": [HumanMessage("I live in Lisbon.")]}, config)
    assert store.list_namespaces() == [("memories", "ana@x%2Eorg")]
    with pytest.raises(ConfigurationError, match="authenticated"):
        graph.invoke({"messages": [HumanMessage("Hello")]}, config, context=MemoryContext(user_id="bo"))
