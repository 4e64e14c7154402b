import json
import urllib.request

import openai
import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

from memgraph_plugin.models.chat import load_chat_model
from memgraph_plugin.models.embeddings import load_embeddings
from memgraph_plugin.testing import Fault, HashingEmbeddings, OpenAIServer


class Fact(BaseModel):
    """A fact."""

    subject: str
    age: int


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def chat(server: OpenAIServer, **options) -> ChatOpenAI:
    return ChatOpenAI(model="chat", base_url=server.base_url, api_key="test", max_retries=0, **options)


async def test_it_answers_and_remembers_what_was_asked():
    with OpenAIServer(["Hello.", "Again."]) as server:
        model = chat(server, temperature=0)
        assert model.invoke("Hi").text == "Hello."
        assert (await model.ainvoke("Hi")).text == "Again."
    assert [request.path for request in server.requests] == ["/chat/completions"] * 2
    assert server.requests[0].body["messages"] == [{"content": "Hi", "role": "user"}]
    assert server.requests[0].authorization == "Bearer test"


async def test_it_streams_with_usage():
    with OpenAIServer(lambda body: "one two three") as server:
        chunks = [chunk async for chunk in chat(server, stream_usage=True).astream("Hi")]
    assert [chunk.text for chunk in chunks if chunk.text] == ["one", " two", " three"]
    assert [chunk.usage_metadata["output_tokens"] for chunk in chunks if chunk.usage_metadata] == [3]


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
def test_structured_output_works_by_every_method(method):
    with OpenAIServer([{"subject": "Ann", "age": 7}]) as server:
        model = chat(server).with_structured_output(Fact, method=method)
        assert model.invoke("Ann is 7; as JSON") == Fact(subject="Ann", age=7)


@pytest.mark.parametrize("streaming", [False, True])
def test_an_agent_calls_tools_through_it(streaming):
    call = AIMessage("", tool_calls=[{"name": "add", "args": {"a": 1, "b": 2}, "id": "1"}])
    with OpenAIServer([call, "It is 3."]) as server:
        agent = create_agent(chat(server, streaming=streaming), [add])
        state = agent.invoke({"messages": [("user", "1+2?")]})
    assert [message.text for message in state["messages"]] == ["1+2?", "", "3", "It is 3."]
    assert server.requests[0].body["tools"][0]["function"]["name"] == "add"


@pytest.mark.parametrize("encoding", [{}, {"encoding_format": "float"}], ids=["base64", "float"])
def test_embeddings_come_in_both_encodings(encoding):
    with OpenAIServer(dimensions=64) as server:
        model = OpenAIEmbeddings(
            model="embedding",
            base_url=server.base_url,
            api_key="test",
            check_embedding_ctx_length=False,
            model_kwargs=encoding,
        )
        vectors = model.embed_documents(["tea", "coffee"])
    assert vectors[0] == pytest.approx(HashingEmbeddings(64).embed_query("tea"), abs=1e-6)
    assert len(vectors) == 2


async def test_the_seams_load_hosted_models_from_it():
    with OpenAIServer(["Hello."], dimensions=32) as server:
        model = load_chat_model("openai:chat", base_url=server.base_url, temperature=0.5)
        assert (await model.ainvoke("Hi")).text == "Hello."
        assert server.requests[0].body["temperature"] == 0.5
        embeddings = load_embeddings("openai:embedding", base_url=server.base_url)
        assert len(await embeddings.aembed_query("tea")) == 32


def test_it_lists_models():
    with OpenAIServer() as server, urllib.request.urlopen(f"{server.base_url}/models") as answer:
        assert [model["id"] for model in json.load(answer)["data"]] == ["chat", "embedding"]


def test_a_script_that_has_ended_says_so():
    with OpenAIServer(["one"]) as server:
        model = chat(server)
        model.invoke("Hi")
        with pytest.raises(openai.InternalServerError, match="chat request 2, but the script has only 1"):
            model.invoke("Hi")


def test_faults_come_before_answers():
    too_many = Fault(429, headers={"retry-after": "0"})
    with OpenAIServer(["Hello."], faults=[Fault(503), Fault(200, body="{broken"), too_many]) as server:
        model = chat(server)
        with pytest.raises(openai.InternalServerError, match="out of order"):
            model.invoke("Hi")
        with pytest.raises(Exception, match=r"JSON|Expecting"):
            model.invoke("Hi")
        with pytest.raises(openai.RateLimitError):
            model.invoke("Hi")
        assert model.invoke("Hi").text == "Hello."


def test_a_hanging_server_times_out_the_client_and_still_closes():
    with OpenAIServer(["Hello."], faults=[Fault(hang=60)]) as server, pytest.raises(openai.APITimeoutError):
        chat(server, timeout=0.2).invoke("Hi")
