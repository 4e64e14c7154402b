import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from pydantic import BaseModel

from memgraph_plugin.testing import ScriptedChatModel


class Fact(BaseModel):
    """A fact."""

    subject: str
    age: int


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def test_replies_come_in_their_order_and_prompts_are_kept():
    model = ScriptedChatModel(replies=["one", AIMessage("two"), lambda messages: messages[-1].text.upper()])
    assert [model.invoke(text).text for text in ("a", "b", "c")] == ["one", "two", "C"]
    assert [prompt[-1].text for prompt in model.prompts] == ["a", "b", "c"]


def test_it_raises_when_told_to_and_when_the_script_has_ended():
    model = ScriptedChatModel(replies=[TimeoutError("slow")])
    with pytest.raises(TimeoutError, match="slow"):
        model.invoke("a")
    with pytest.raises(IndexError, match="asked 2 times, but the script has only 1"):
        model.invoke("b")


def test_the_last_reply_repeats_on_request():
    model = ScriptedChatModel(replies=["a", "b"], repeat_last=True)
    assert [model.invoke("?").text for _ in range(4)] == ["a", "b", "b", "b"]


async def test_it_streams_word_by_word():
    model = ScriptedChatModel(replies=["one two  three"], repeat_last=True)
    assert [chunk.text for chunk in model.stream("?") if chunk.text] == ["one", " two", "  three"]
    assert "".join([chunk.text async for chunk in model.astream("?")]) == "one two  three"


def test_streamed_tool_calls_are_whole():
    call = {"name": "add", "args": {"a": 1, "b": 2}, "id": "1", "type": "tool_call"}
    model = ScriptedChatModel(replies=[AIMessage("", tool_calls=[call])])
    first, *rest = model.stream("?")
    assert sum(rest, first).tool_calls == [call]


async def test_an_agent_calls_tools_with_it():
    call = AIMessage("", tool_calls=[{"name": "add", "args": {"a": 1, "b": 2}, "id": "1"}])
    model = ScriptedChatModel(replies=[call, "It is 3."])
    state = await create_agent(model, [add]).ainvoke({"messages": [("user", "1+2?")]})
    assert [message.text for message in state["messages"]] == ["1+2?", "", "3", "It is 3."]
    assert [tool["function"]["name"] for tool in model.bound_tools[0]] == ["add"]


def test_structured_output_reads_json_text():
    model = ScriptedChatModel(replies=['{"subject": "Ann", "age": 7}'])
    assert model.with_structured_output(Fact).invoke("?") == Fact(subject="Ann", age=7)


def test_structured_output_hands_back_the_raw_reply_of_nonsense():
    model = ScriptedChatModel(replies=["no JSON here"])
    answer = model.with_structured_output(Fact, include_raw=True).invoke("?")
    assert answer["parsed"] is None
    assert answer["raw"].text == "no JSON here"
