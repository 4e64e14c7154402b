import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Literal

import platformdirs
import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_tests.unit_tests import ChatModelUnitTests
from pydantic import BaseModel, Field

from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.memalpha.chat_policy import ChatModelPolicy
from memgraph_plugin.memalpha.local_policy import LocalPolicy
from memgraph_plugin.memalpha.operations import Handles
from memgraph_plugin.memalpha.tools import shown_schema
from memgraph_plugin.memalpha.validation import Limits, validate
from memgraph_plugin.models.chat import load_chat_model
from memgraph_plugin.models.local import LocalChatModel, _prompt
from memgraph_plugin.types import Turn

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


class Fact(BaseModel):
    """A fact about a person."""

    kind: Literal["age", "place"]
    value: int = Field(ge=0, le=99)


def remember(kind: Literal["age", "place"]) -> str:
    """Remember something."""
    return f"remembered {kind}"


def forget(kind: Literal["age", "place"]) -> str:
    """Forget something."""
    return f"forgot {kind}"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A language model of two random layers over bytes, in a directory."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: index for index, letter in enumerate([*letters, "<end>"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")
    fast.chat_template = TEMPLATE
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        eos_token_id=vocabulary["<end>"],
        initializer_range=0.2,
    )
    path = tmp_path_factory.mktemp("models") / "tiny"
    LlamaForCausalLM(config).save_pretrained(path)
    fast.save_pretrained(path)
    return path


@pytest.fixture
def model(tiny):
    return LocalChatModel(path=str(tiny), max_tokens=24)


def pulled(name: str) -> LocalChatModel:
    try:
        return load_chat_model(f"local:{name}", max_tokens=48)
    except ConfigurationError as error:
        pytest.skip(str(error))


async def test_streamed_and_whole_replies_are_the_same(model):
    whole = model.invoke("Hi")
    streamed = list(model.stream("Hi"))
    assert "".join(chunk.text for chunk in streamed) == whole.text
    assert len(streamed) > 3
    assert "".join([chunk.text async for chunk in model.astream("Hi")]) == whole.text
    assert (await model.ainvoke("Hi")).text == whole.text


def test_decoding_is_that_of_transformers(model):
    weights = model.weights()
    prompt = weights.tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], add_generation_prompt=True, return_tensors="pt"
    )
    made = weights.model.generate(**prompt, max_new_tokens=24, do_sample=False)
    reply = weights.tokenizer.decode(made[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    assert model.invoke("Hi").text.rstrip("�") == reply.rstrip("�")


def test_usage_and_the_reason_for_the_end_are_told(model):
    reply = model.invoke("Hi", max_tokens=5)
    assert reply.usage_metadata == {
        "input_tokens": len("<user>Hi<assistant>"),
        "output_tokens": 5,
        "total_tokens": len("<user>Hi<assistant>") + 5,
    }
    assert reply.response_metadata["finish_reason"] == "length"


def test_a_reply_ends_before_a_stop_word(model):
    whole = model.invoke("Hi").text
    word = whole[4:7]
    assert model.invoke("Hi", stop=[word]).text == whole[: whole.index(word)]
    chunks = list(model.stream("Hi", stop=[word]))
    assert "".join(chunk.text for chunk in chunks) == whole[: whole.index(word)]
    assert chunks[-1].response_metadata["finish_reason"] == "stop"


def test_a_seed_makes_a_sampled_reply_repeatable(tiny):
    warm = LocalChatModel(path=str(tiny), max_tokens=24, temperature=1.0, seed=1)
    assert warm.invoke("Hi").text == warm.invoke("Hi").text
    assert warm.invoke("Hi").text != warm.invoke("Hi", seed=2).text
    assert LocalChatModel(path=str(tiny), temperature=1.0, top_p=0.0, max_tokens=24).invoke("Hi").text == (
        LocalChatModel(path=str(tiny), max_tokens=24).invoke("Hi").text
    )


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_structured_output_parses_whatever_the_weights_say(tiny, method, temperature):
    model = LocalChatModel(path=str(tiny), temperature=temperature)
    structured = model.with_structured_output(Fact, method=method)
    assert isinstance(structured.invoke("Ann is 7."), Fact)


def test_structured_output_takes_a_json_schema_and_gives_the_raw_reply(model):
    schema = {
        "title": "answer",
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
    }
    answer = model.with_structured_output(schema, include_raw=True).invoke("Fine?")
    assert answer["parsed"] == json.loads(answer["raw"].text)
    assert answer["parsing_error"] is None
    assert answer["raw"].response_metadata["finish_reason"] == "stop"


def test_structured_output_that_is_cut_keeps_the_raw_reply(model):
    answer = model.with_structured_output(Fact, include_raw=True, max_tokens=4).invoke("Ann is 7.")
    assert answer["parsed"] is None
    assert answer["raw"].response_metadata["finish_reason"] == "length"


def test_a_schema_beyond_reach_is_a_configuration_error(model):
    with pytest.raises(ConfigurationError, match="cannot be held to this schema"):
        model.invoke("Hi", json_schema={"type": "no such type"})


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("any", {"remember", "forget"}),
        (True, {"remember", "forget"}),
        ("forget", {"forget"}),
        ({"type": "function", "function": {"name": "forget"}}, {"forget"}),
    ],
)
async def test_a_forced_tool_call_is_a_call(model, choice, names):
    bound = model.bind_tools([remember, forget], tool_choice=choice).bind(max_tokens=100)
    reply = await bound.ainvoke("Ann is 7.")
    assert reply.tool_calls[0]["name"] in names
    assert reply.tool_calls[0]["args"]["kind"] in ("age", "place")
    assert reply.text == ""
    first, *rest = bound.stream("Ann is 7.")
    assert sum(rest, first).tool_calls[0]["args"] == reply.tool_calls[0]["args"]


def test_a_tool_choice_that_names_no_tool_is_a_configuration_error(model):
    with pytest.raises(ConfigurationError, match="'nothing', but the tools are: remember"):
        model.bind_tools([remember], tool_choice="nothing")


def test_offered_tools_leave_an_ordinary_reply_alone(model):
    reply = model.bind_tools([remember]).invoke("Hi")
    assert reply.tool_calls == []
    assert model.bind_tools([remember], tool_choice="none").invoke("Hi").text == model.invoke("Hi").text


def test_a_whole_conversation_fits_the_template(model):
    call = {"name": "remember", "args": {"kind": "age"}, "id": "1"}
    messages = [
        SystemMessage("Be brief."),
        HumanMessage([{"type": "text", "text": "Ann is 7."}]),
        AIMessage("", tool_calls=[call]),
        ToolMessage("remembered", tool_call_id="1"),
    ]
    prompt = "<system>Be brief.<user>Ann is 7.<assistant><tool>remembered<assistant>"
    assert model.invoke(messages).usage_metadata["input_tokens"] == len(prompt)


def test_an_over_long_prompt_names_both_numbers(model):
    with pytest.raises(ConfigurationError, match="the prompt has 1217 tokens, and tiny reads 1024 at most"):
        model.invoke("x" * 1200)
    assert model.invoke("x" * 1000, max_tokens=100).usage_metadata["total_tokens"] <= 1024


def test_tokens_are_counted_by_the_models_own_tokenizer(model):
    assert model.get_num_tokens("hello") == 5


def test_a_model_without_a_chat_template_is_refused(tiny, tmp_path):
    for file in tiny.iterdir():
        if file.name != "chat_template.jinja":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ConfigurationError, match="no chat template"):
        LocalChatModel(path=str(tmp_path)).invoke("Hi")


@pytest.mark.parametrize("content", [None, "not json"])
def test_a_model_that_is_not_there_is_a_configuration_error(tmp_path, content):
    if content:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigurationError, match="no language model could be loaded"):
        LocalChatModel(path=str(tmp_path)).invoke("Hi")


async def test_many_callers_share_one_copy_of_the_weights(tiny):
    models = [LocalChatModel(path=str(tiny), max_tokens=8) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        weights = list(pool.map(lambda model: model.weights(), models))
    assert all(each is weights[0] for each in weights)
    replies = await asyncio.gather(*(model.ainvoke("Hi") for model in models))
    assert len({reply.text for reply in replies}) == 1


class TestStandards(ChatModelUnitTests):
    """What LangChain expects of every chat model."""

    @property
    def chat_model_class(self):
        return LocalChatModel

    @property
    def chat_model_params(self):
        return {"path": "nowhere"}


STRICT = """\
{% for m in messages %}{% if loop.previtem is defined and loop.previtem.role == m.role %}\
{{ raise_exception('roles must alternate') }}{% endif %}[{{ m.role }}]{{ m.content }}{% endfor %}"""


def test_two_user_messages_in_a_row_are_one_to_the_template(model, monkeypatch):
    tokenizer = model.weights().tokenizer
    monkeypatch.setattr(tokenizer, "chat_template", STRICT)
    memory, question = HumanMessage("(memories)"), HumanMessage("Where do I live?")
    ids = _prompt(model.weights(), [SystemMessage("Be kind."), memory, question], [], None)
    assert tokenizer.decode(ids) == "[system]Be kind.[user](memories)\n\nWhere do I live?"


@pytest.mark.local_model
def test_the_default_model_decides_in_form_or_the_rules_do():
    policy = ChatModelPolicy(pulled("qwen2.5-coder-0.5b-instruct"))
    turn = Turn(key="t", role="user", text="I am allergic to nuts.", at=datetime(2025, 5, 7, tzinfo=UTC))
    decision = policy.decide([turn], [])
    assert decision.policy in ("chat", "rules")
    assert decision.operations
    assert decision.raw
    assert not validate(decision.operations, [turn], []).rejected
    if decision.error:
        assert [each.text for each in decision.operations] == ["The user is allergic to nuts."]


@pytest.mark.local_model
def test_the_small_model_answers_in_form():
    model = pulled("smollm2-135m-instruct")
    first, *rest = model.stream("Say hello.")
    reply = sum(rest, first)
    assert 0 < reply.usage_metadata["output_tokens"] <= 48
    assert len(rest) > 1
    assert isinstance(model.with_structured_output(Fact).invoke("Ann is 7 years old."), Fact)
    assert model.bind_tools([remember, forget], tool_choice="any").invoke("Ann is 7.").tool_calls


@pytest.mark.local_model
def test_the_default_model_extracts_facts_and_calls_tools():
    model = pulled("qwen2.5-coder-0.5b-instruct")
    assert model.with_structured_output(Fact).invoke("Ann is 34 years old.") == Fact(kind="age", value=34)
    reply = model.bind_tools([remember, forget]).invoke("Use the tool to remember my age.")
    assert [call["name"] for call in reply.tool_calls] == ["remember"]


@pytest.mark.local_model
def test_the_hosted_path_works_against_a_real_model():
    xllamacpp = pytest.importorskip("xllamacpp")
    gguf = platformdirs.user_cache_path("memgraph-plugin") / "models/smollm2-135m-instruct/model.gguf"
    if not gguf.exists():
        pytest.skip(
            "no GGUF of smollm2-135m-instruct was kept: memgraph-plugin models pull smollm2-135m-instruct"
        )
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(gguf)
    parameters.n_ctx, parameters.cpuparams.n_threads, parameters.port = 1024, 2, 0
    server = xllamacpp.Server(parameters)
    model = load_chat_model("openai:local", base_url=f"{server.listening_address}/v1", temperature=0)
    assert model.invoke("Say hello.", max_tokens=16).text
    assert sum(bool(chunk.text) for chunk in model.stream("Say hello.", max_tokens=16)) > 1
    assert isinstance(model.with_structured_output(Fact).invoke("Ann is 7 years old."), Fact)


def test_a_reply_can_be_held_to_the_operations_of_a_call(tiny):
    from memgraph_plugin.models.decoding import Constraint

    turn = Turn(key="t", role="user", text="I play chess.", at=datetime(2025, 5, 7, tzinfo=UTC))
    held = Constraint(LocalChatModel(path=str(tiny)).weights(), shown_schema(Handles.assign([turn], [])))
    assert held.forced()  # {"ops": [{"op": "
    assert not held.complete


@pytest.mark.local_model
def test_a_small_model_cannot_leave_the_form_of_the_operations():
    policy = LocalPolicy(
        pulled("smollm2-135m-instruct"), limits=Limits(operations=2, characters=60), max_tokens=200
    )
    turn = Turn(key="t", role="user", text="I am allergic to nuts.", at=datetime(2025, 5, 7, tzinfo=UTC))
    decision = policy.decide([turn], [])
    assert decision.operations
    assert all(raw.startswith('{"ops": [{"op": "') for raw in decision.raw)
    assert "unknown_handle" not in {receipt.code for receipt in decision.rejected}
