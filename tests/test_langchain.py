"""Memory in LangChain's agents: the middleware, the tools, the retriever."""

from __future__ import annotations

import json
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import SummarizationMiddleware
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.messages.tool import tool_call
from langchain_core.retrievers import BaseRetriever
from langchain_core.tools import tool
from langchain_tests.integration_tests import RetrieversIntegrationTests
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from memgraph_plugin.background import BackgroundWriter
from memgraph_plugin.errors import ConfigurationError, DatabaseUnavailable, MissingNamespaceError, StoreError
from memgraph_plugin.integrations.langchain import MemoryMiddleware
from memgraph_plugin.integrations.tools import MemoryRetriever, memory_tools
from memgraph_plugin.memalpha.chat_policy import ChatModelPolicy
from memgraph_plugin.memorag.drafters import ChatModelDrafter
from memgraph_plugin.state import MemoryContext
from memgraph_plugin.store.in_memory import InMemoryMemoryStore
from memgraph_plugin.testing import HashingEmbeddings, ScriptedChatModel
from memgraph_plugin.types import Hit, Insert, Receipts
from tests.test_chat_policy import call

ANN = MemoryContext(user_id="ann")
HERS = ("memories", "ann")


class CountingStore(InMemoryMemoryStore):
    """Counts recalls over everything, which is what an answer asks for."""

    asked = 0

    def recall(self, *args: Any, **kwargs: Any) -> list[Hit]:
        self.asked += kwargs.get("kinds") is None
        return super().recall(*args, **kwargs)

    async def arecall(self, *args: Any, **kwargs: Any) -> list[Hit]:
        self.asked += kwargs.get("kinds") is None
        return await super().arecall(*args, **kwargs)


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"SECRET-TOOL-RESULT: sunny in {city}"


@pytest.fixture
def store() -> CountingStore:
    return CountingStore(embeddings=HashingEmbeddings(dimensions=256))


@pytest.fixture
def model() -> ScriptedChatModel:
    return ScriptedChatModel(replies=["All right."], repeat_last=True)


@pytest.fixture(params=["sync", "async"])
def run(request: pytest.FixtureRequest) -> Any:
    """Runs an agent either way: what holds for one must hold for the other."""

    async def ask(
        agent: Any, said: str | Command, *, thread: str = "1", context: Any = ANN
    ) -> dict[str, Any]:
        asked = {"messages": [HumanMessage(said)]} if isinstance(said, str) else said
        given = asked, {"configurable": {"thread_id": thread}}
        if request.param == "sync":
            return agent.invoke(*given, context=context)
        return await agent.ainvoke(*given, context=context)

    return ask


def turns(store: InMemoryMemoryStore, namespace: tuple[str, ...] = HERS) -> list[str]:
    return sorted(hit.memory.text for hit in store.recall(namespace, "", k=100, kinds=("turn",)))


def facts(store: InMemoryMemoryStore) -> list[str]:
    return sorted(hit.memory.text for hit in store.recall(HERS, "", k=100, kinds=("semantic",)))


def sent(messages: list[Any]) -> str:
    return "\n".join(message.text for message in messages)


async def test_an_agent_remembers_in_the_next_session(store, model, run) -> None:
    agent = create_agent(model, middleware=[MemoryMiddleware(store=store)], context_schema=MemoryContext)
    await run(agent, "I live in Lisbon.", thread="1")
    result = await run(agent, "Where do I live?", thread="2")
    assert "Lisbon" in sent(model.prompts[-1])
    assert "Lisbon" not in sent(result["messages"])
    assert set(result) == {"messages"}


async def test_recall_happens_once_a_turn_and_tool_talk_is_not_stored(store, run) -> None:
    call = AIMessage(
        "Let me look.", tool_calls=[tool_call(name="weather", args={"city": "Porto"}, id="call_1")]
    )
    model = ScriptedChatModel(replies=[call, "Sunny."])
    agent = create_agent(model, [weather], middleware=[MemoryMiddleware()], store=store)
    store.apply(HERS, [Insert(text="The user lives in Porto.")])
    result = await run(agent, "How is the weather where I live?")
    assert [type(message) for message in result["messages"]] == [
        HumanMessage,
        AIMessage,
        ToolMessage,
        AIMessage,
    ]
    assert store.asked == 1
    assert all("The user lives in Porto." in sent(prompt) for prompt in model.prompts)
    store.asked = 0
    assert turns(store) == ["How is the weather where I live?", "Sunny."]


async def test_the_block_is_a_marked_user_message_before_the_question(store, model, run) -> None:
    store.apply(HERS, [Insert(text="The user lives in Lisbon.")])
    agent = create_agent(model, system_prompt="Be kind.", middleware=[MemoryMiddleware()], store=store)
    await run(agent, "Where do I live?")
    system, block, question = model.prompts[0]
    assert system.text == "Be kind."
    assert isinstance(block, HumanMessage)
    assert block.additional_kwargs == {"memgraph_plugin": "memory"}
    assert question.text == "Where do I live?"


@pytest.mark.parametrize("prompt", ["Be kind.", None])
async def test_the_block_may_end_the_system_message_instead(store, model, run, prompt: str | None) -> None:
    store.apply(HERS, [Insert(text="The user lives in Lisbon.")])
    middleware = MemoryMiddleware(store=store, inject_as="system")
    await run(create_agent(model, system_prompt=prompt, middleware=[middleware]), "Where do I live?")
    system, question = model.prompts[0]
    assert isinstance(system, SystemMessage)
    assert "Lisbon" in system.text
    assert (prompt or "") in system.text
    assert question.text == "Where do I live?"


async def test_reading_only_writes_nothing(store, model, run) -> None:
    agent = create_agent(model, middleware=[MemoryMiddleware(store=store, write=False)])
    await run(agent, "I live in Lisbon.")
    assert turns(store) == []


async def test_clues_find_what_the_users_words_do_not(store, model, run) -> None:
    for number in range(12):
        store.apply(HERS, [Insert(text=f"Thing number {number} that happened.")])
    store.apply(HERS, [Insert(text="The seal is kept in a tin of herring.")])
    clues = {"spans": ["The seal lies in a tin of herring."], "questions": [], "entities": []}
    drafter = ScriptedChatModel(replies=[json.dumps(clues)], repeat_last=True)
    for given, found in ((None, False), (ChatModelDrafter(drafter), True)):
        middleware = MemoryMiddleware(k=4, clues=given, write=False)
        agent = create_agent(model, middleware=[middleware], store=store)
        await run(agent, "What happened to that thing?")
        assert ("tin of herring" in sent(model.prompts[-1])) == found
    assert drafter.calls == 1
    await run(agent, "Where is the seal kept in a tin of herring?", thread="2")
    assert drafter.calls == 1, "a plain question costs no model call"


async def test_clues_that_fail_leave_the_turn_as_it_is(store, model, run, caplog) -> None:
    store.apply(HERS, [Insert(text="That thing is a seal.")])
    broken = ScriptedChatModel(replies=[ConnectionError("no route")], repeat_last=True)
    middleware = MemoryMiddleware(clues=ChatModelDrafter(broken), write=False)
    await run(create_agent(model, middleware=[middleware], store=store), "What happened to that thing?")
    assert "That thing is a seal." in sent(model.prompts[-1])
    assert "Clues failed (ConnectionError)" in caplog.text


@pytest.mark.parametrize(("answer", "expected"), [("approve", ["The user plays chess."]), ("reject", [])])
async def test_an_agent_asks_before_it_remembers(store, model, run, answer: str, expected: list[str]) -> None:
    asked = ScriptedChatModel(
        replies=[call({"op": "insert", "text": "The user plays chess.", "evidence": ["t1"]})]
    )
    memory = MemoryMiddleware(policy=ChatModelPolicy(asked), approve=("insert",))
    agent = create_agent(
        model, middleware=[memory], store=store, context_schema=MemoryContext, checkpointer=InMemorySaver()
    )
    result = await run(agent, "I play chess.")
    [waiting] = result["__interrupt__"]
    assert [each["text"] for each in waiting.value["operations"]] == ["The user plays chess."]
    assert result["messages"][-1].text == "All right."
    assert (facts(store), turns(store)) == ([], ["All right.", "I play chess."])
    result = await run(agent, Command(resume=answer))
    assert facts(store) == expected
    assert asked.calls == 1
    assert "__interrupt__" not in result
    assert turns(store) == ["All right.", "I play chess."]


async def test_what_an_agent_was_not_told_yes_to_lapses_with_the_next_turn(store, model, run) -> None:
    memory = MemoryMiddleware(namespace=HERS, approve=("insert",))
    agent = create_agent(model, middleware=[memory], store=store, checkpointer=InMemorySaver())
    assert (await run(agent, "I live in Lisbon.", context=None))["__interrupt__"]
    [waiting] = (await run(agent, "I work as a nurse.", context=None))["__interrupt__"]
    assert [each["text"] for each in waiting.value["operations"]] == ["The user works as a nurse."]
    await run(agent, Command(resume="approve"), context=None)
    assert facts(store) == ["The user works as a nurse."]
    assert "__interrupt__" not in await run(agent, "How are you?", context=None)
    assert len(turns(store)) == 6


async def test_two_memories_serve_one_agent(store, model, run) -> None:
    team, own = MemoryMiddleware(namespace=("team",), write=False), MemoryMiddleware()
    store.apply(("team",), [Insert(text="The office is in Berlin.")])
    store.apply(HERS, [Insert(text="The user's desk is by the office window.")])
    agent = create_agent(model, middleware=[team, own], store=store)
    await run(agent, "Where is the office?")
    assert "Berlin" in sent(model.prompts[0])
    assert "window" in sent(model.prompts[0])
    assert turns(store, ("team",)) == []
    assert turns(store) != []


async def test_threads_keep_their_own_messages_and_recall_what_is_not_shown(store, model, run) -> None:
    agent = create_agent(model, middleware=[MemoryMiddleware()], store=store, checkpointer=InMemorySaver())
    await run(agent, "My dog is called Rex.")
    await run(agent, "What is my dog called?")
    assert sent(model.prompts[-1]).count("My dog is called Rex.") == 1


async def test_summaries_of_the_conversation_are_nobodys_words(store, run) -> None:
    model = ScriptedChatModel(replies=["Noted."], repeat_last=True)
    summary = SummarizationMiddleware(
        ScriptedChatModel(replies=["SUMMARY"], repeat_last=True),
        trigger=("messages", 3),
        keep=("messages", 1),
    )
    agent = create_agent(
        model, middleware=[summary, MemoryMiddleware()], store=store, checkpointer=InMemorySaver()
    )
    for text in ("I live in Lisbon.", "I have a cat.", "I like tea."):
        result = await run(agent, text)
    assert "SUMMARY" in sent(result["messages"])
    assert not [text for text in turns(store) if "SUMMARY" in text]
    assert {"I live in Lisbon.", "I have a cat.", "I like tea."} <= set(turns(store))


async def test_any_context_with_a_user_will_do_and_none_will_not(store, model, run) -> None:
    agent = create_agent(model, middleware=[MemoryMiddleware()], store=store)
    await run(agent, "Hello", context={"user_id": "ann"})
    assert "Hello" in turns(store)
    with pytest.raises(MissingNamespaceError):
        await run(agent, "Hello", context=None)


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="inject_as"):
        MemoryMiddleware(inject_as="tool")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"'a\.b'"):
        MemoryMiddleware(namespace=("a.b",))
    with pytest.raises(ConfigurationError, match="nobody is there"):
        MemoryMiddleware(approve=("delete",), writer=BackgroundWriter())
    with pytest.raises(ConfigurationError, match=r"create_agent\(store=\.\.\.\)"):
        MemoryMiddleware(approve=("delete",), store=InMemoryMemoryStore())


class BrokenStore(InMemoryMemoryStore):
    """A database that is not there."""

    def recall(self, *args: Any, **kwargs: Any) -> list[Hit]:
        raise DatabaseUnavailable

    async def arecall(self, *args: Any, **kwargs: Any) -> list[Hit]:
        raise DatabaseUnavailable

    def apply(self, *args: Any, **kwargs: Any) -> Receipts:
        raise DatabaseUnavailable

    async def aapply(self, *args: Any, **kwargs: Any) -> Receipts:
        raise DatabaseUnavailable


async def test_recall_fails_open_and_writing_fails_loud(model, run) -> None:
    reading = create_agent(model, middleware=[MemoryMiddleware(store=BrokenStore(), write=False)])
    assert (await run(reading, "Hello"))["messages"][-1].text == "All right."
    with pytest.raises(StoreError):
        await run(create_agent(model, middleware=[MemoryMiddleware(store=BrokenStore())]), "Hello")


async def test_an_agent_manages_its_memory_by_tool(store, run) -> None:
    def calls(name: str, **arguments: Any) -> AIMessage:
        return AIMessage("", tool_calls=[tool_call(name=name, args=arguments, id=name)])

    def delete_first(messages: list[AnyMessage]) -> AIMessage:
        found = json.loads(messages[-1].text)
        return calls("manage_memory", action="delete", id=found[0]["id"])

    model = ScriptedChatModel(
        replies=[
            calls("manage_memory", content="The user lives in Lisbon."),
            "Noted.",
            calls("search_memory", query="Lisbon", limit=1, filter={"content": {"$exists": True}}),
            delete_first,
            "Gone.",
        ]
    )
    agent = create_agent(model, middleware=[MemoryMiddleware(store=store, write=False, tools=True)])
    await run(agent, "Remember that.")
    assert [hit.memory.text for hit in store.recall(HERS, "", k=9)] == ["The user lives in Lisbon."]
    result = await run(agent, "Delete that.", thread="2")
    assert "delete applied" in result["messages"][-2].text
    assert store.recall(HERS, "", k=9) == []


def test_tools_have_the_arguments_that_langmem_gave_them(store) -> None:
    manage, search = memory_tools(store=store, namespace=HERS)
    assert list(manage.args) == ["content", "action", "id"]
    assert list(search.args) == ["query", "limit", "offset", "filter"]
    assert [each.name for each in memory_tools(actions=())] == ["search_memory"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"action": "create"}, "needs content"),
        ({"action": "update", "content": "x"}, "needs the id"),
        ({"action": "update", "content": "x", "id": "nowhere"}, "not_found"),
        ({"action": "update", "content": "x", "id": "turn:1"}, "cannot be changed"),
        ({"action": "create", "content": "x", "id": "k"}, "takes no id"),
        ({"action": "create", "content": "My password is hunter2-Xy9!"}, "secret"),
    ],
)
def test_a_refused_action_is_told_to_the_model(store, arguments: dict[str, str], reason: str) -> None:
    manage, _ = memory_tools(store=store, namespace=HERS)
    assert reason in manage.invoke(arguments)


async def test_a_filter_that_means_nothing_is_told_to_the_model(store) -> None:
    _, search = memory_tools(store=store, namespace=HERS)
    wrong = {"query": "Lisbon", "filter": {"city": {"$near": "Porto"}}}
    assert "Unknown operator" in search.invoke(wrong)
    assert "Unknown operator" in await search.ainvoke(wrong)


def test_tools_work_outside_a_run_and_only_with_a_namespace(store) -> None:
    manage, search = memory_tools(store=store, namespace=HERS, actions=("create",))
    manage.invoke({"content": "The user lives in Lisbon. <recalled-memories>x</recalled-memories>"})
    assert json.loads(search.invoke({"query": "Lisbon"}))[0]["content"] == "The user lives in Lisbon."
    assert json.loads(search.invoke({"query": "Lisbon", "offset": 1})) == []
    assert json.loads(search.invoke({"query": "Lisbon", "limit": -1, "offset": -1})) == []
    assert "must be one of" in manage.invoke({"action": "delete", "id": "x"})
    with pytest.raises(MissingNamespaceError):
        memory_tools(store=store)[1].invoke({"query": "Lisbon"})


class TestMemoryRetriever(RetrieversIntegrationTests):
    """LangChain's own tests of a retriever."""

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return MemoryRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        store = InMemoryMemoryStore(embeddings=HashingEmbeddings(dimensions=256))
        store.apply(HERS, [Insert(text=f"The user owns cat number {number}.") for number in range(5)])
        return {"store": store, "namespace": HERS}

    @property
    def retriever_query_example(self) -> str:
        return "Which cats does the user own?"


def test_documents_say_where_they_come_from(store) -> None:
    store.apply(HERS, [Insert(text="The user lives in Lisbon.", key="home", value={"city": "Lisbon"})])
    (document,) = MemoryRetriever(store=store, namespace=HERS).invoke("Lisbon")
    assert (document.id, document.page_content) == ("home", "The user lives in Lisbon.")
    assert document.metadata["value"] == {"city": "Lisbon"}
    assert document.metadata["namespace"] == HERS
