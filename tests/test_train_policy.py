"""A policy is trained: imitation, GRPO, going on from a checkpoint, and what is written down of it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch")
pytest.importorskip("trl")
pytest.importorskip("peft")

from memgraph_plugin.cli import app  # noqa: E402
from memgraph_plugin.errors import ConfigurationError  # noqa: E402
from memgraph_plugin.memalpha.environment import Environment  # noqa: E402
from memgraph_plugin.memalpha.episodes import Episode, TimelineTalk, cut  # noqa: E402
from memgraph_plugin.memalpha.operations import Handles  # noqa: E402
from memgraph_plugin.memalpha.policies import DecidingPolicy  # noqa: E402
from memgraph_plugin.memalpha.rewards import TERMS  # noqa: E402
from memgraph_plugin.memalpha.timelines import timeline  # noqa: E402
from memgraph_plugin.memalpha.train_policy import Recipe, adapted, decide, mark, prompt_ids, save, train  # noqa: E402
from memgraph_plugin.memalpha.trained_policy import TrainedPolicy  # noqa: E402
from memgraph_plugin.memalpha.validation import Limits  # noqa: E402
from memgraph_plugin.models.rollouts import rollouts  # noqa: E402
from memgraph_plugin.models.weights import Weights  # noqa: E402
from memgraph_plugin.store.in_memory import InMemoryMemoryStore  # noqa: E402
from memgraph_plugin.types import Insert, Turn  # noqa: E402
from tests.tiny_models import tiny  # noqa: E402

ENVIRONMENT = Environment(
    new_store=InMemoryMemoryStore, prompt="{max_operations} {max_characters}", ask="", shown=2, newest=1
)
RECIPE = Recipe(
    warmup=2, warmup_batch=2, steps=2, group=2, max_tokens=24, rate=1e-3, rank=2, save_every=1, seed=3
)
SCHEMA = {
    "type": "object",
    "properties": {"op": {"type": "string", "enum": ["insert", "noop"]}},
    "required": ["op"],
    "additionalProperties": False,
}
TEMPLATE = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"


@pytest.fixture
def weights(tmp_path: Path) -> Weights:
    made = tiny(num_hidden_layers=1)
    made.tokenizer.chat_template = TEMPLATE
    made.model.save_pretrained(tmp_path / "base")
    made.tokenizer.save_pretrained(tmp_path / "base")
    return fresh(tmp_path / "base")


def fresh(base: Path) -> Weights:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return Weights("tiny", AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base))


@pytest.fixture(scope="module")
def episodes() -> list[Episode]:
    return list(cut(TimelineTalk(timeline(1, split="train", sessions=2, facts=2))))[:3]


def adapter(weights: Weights) -> dict[str, torch.Tensor]:
    return {name: each.clone() for name, each in weights.model.named_parameters() if "lora" in name}


def test_rollouts_follow_the_schema_and_tell_what_was_chosen(weights: Weights) -> None:
    torch.manual_seed(1)
    made = rollouts(weights, [5, 6, 7], 4, SCHEMA, max_tokens=30, temperature=1.0)
    assert all(json.loads(weights.tokenizer.decode(each.tokens))["op"] in ("insert", "noop") for each in made)
    assert all(each.whole and len(each.tokens) == len(each.chosen) for each in made)
    assert all(1 <= sum(each.chosen) <= 3 for each in made), "of all the letters the first of the word alone"
    assert len({tuple(each.tokens) for each in made}) == 2


def test_training_changes_the_adapter_logs_each_term_and_goes_on_where_it_stopped(
    weights: Weights, episodes: list[Episode], tmp_path: Path
) -> None:
    policy = adapted(weights, RECIPE)
    begun = adapter(policy)
    told: list[tuple[int, int]] = []
    train(
        policy, episodes, ENVIRONMENT, tmp_path / "a", RECIPE,
        progress=lambda done, total, _: told.append((done, total)),
    )  # fmt: skip
    assert any(not torch.equal(begun[name], each) for name, each in adapter(policy).items())
    assert told == [(1, 2), (2, 2)] * 2
    lines = [json.loads(line) for line in (tmp_path / "a" / "rewards.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert set(TERMS) < lines[0].keys()

    half = adapted(fresh(tmp_path / "base"), RECIPE)
    (tmp_path / "b").mkdir()
    for part in ("warmup", "grpo"):
        (tmp_path / "b" / part).mkdir()
        (tmp_path / "a" / part / "checkpoint-1").rename(tmp_path / "b" / part / "checkpoint-1")
    train(half, episodes, ENVIRONMENT, tmp_path / "b", RECIPE)
    for name, each in adapter(half).items():
        assert torch.allclose(each, adapter(policy)[name], atol=1e-6), name

    with pytest.raises(ConfigurationError, match="another training"):
        train(half, episodes[:2], ENVIRONMENT, tmp_path / "a", RECIPE)


def test_a_training_is_another_with_another_model_or_environment(
    weights: Weights, episodes: list[Episode], tmp_path: Path
) -> None:
    policy = adapted(weights, RECIPE)
    first = mark(policy, episodes, ENVIRONMENT, RECIPE)
    with torch.no_grad():
        for name, each in policy.model.named_parameters():
            if "lora_" in name:
                each.add_(1.0)  # trained in between
    assert mark(policy, episodes, ENVIRONMENT, RECIPE) == first
    again = replace(ENVIRONMENT, new_store=lambda: InMemoryMemoryStore())
    assert mark(adapted(fresh(tmp_path / "base"), RECIPE), episodes, again, RECIPE) == first

    other = fresh(tmp_path / "base")
    with torch.no_grad():
        next(other.model.parameters()).add_(1.0)
    assert mark(adapted(other, RECIPE), episodes, ENVIRONMENT, RECIPE) != first
    for change in (
        {"k": 3}, {"budget": 30}, {"shown": 3}, {"newest": 2}, {"core": ()}, {"limits": Limits(operations=3)},
        {"prompt": "p {max_operations} {max_characters}"}, {"ask": "?"},
    ):  # fmt: skip
        assert mark(policy, episodes, replace(ENVIRONMENT, **change), RECIPE) != first, change


def test_what_was_saved_decides_again_and_proposes_what_the_validator_takes(
    weights: Weights, episodes: list[Episode], tmp_path: Path
) -> None:
    policy = adapted(weights, RECIPE)
    text, _, whole = decide(policy, ENVIRONMENT, episodes[0], RECIPE)
    assert not whole, "24 tokens hold no reply"
    card = {"prompt": ENVIRONMENT.prompt, "ask": "", "max_tokens": RECIPE.max_tokens}
    save(policy, tmp_path / "made", card)
    read = TrainedPolicy.from_folder(tmp_path / "made")
    assert read.reply(ENVIRONMENT.handles(episodes[0])) == text
    assert read.propose(episodes[0].turns, episodes[0].memories)


async def test_a_trained_policy_says_what_was_refused_and_who_decided(
    weights: Weights, caplog: pytest.LogCaptureFixture
) -> None:
    class Saying(TrainedPolicy):
        __slots__ = ()

        def reply(self, handles: Handles) -> str:
            return self.prompt

    caplog.set_level("INFO")
    turns = [Turn(key="u", role="user", text="I live in Porto", at=datetime(2024, 5, 1, tzinfo=UTC))]
    porto, oslo = (
        f'{{"op": "insert", "text": "The user lives in {home}.", "evidence": ["t1"]}}'
        for home in ("Porto", "Oslo")
    )
    for said, policy, codes, texts in (
        (f'{{"ops": [{porto}]}}', "trained", [], ["The user lives in Porto."]),
        (f'{{"ops": [{porto}, {oslo}]}}', "trained", ["ungrounded"], ["The user lives in Porto."]),
        (f'{{"ops": [{oslo}]}}', "trained", ["ungrounded"], []),
        ('{"ops": [{"op": ', "rules", [], ["The user lives in Porto."]),
    ):
        made = Saying(weights=weights, prompt=said, ask="", max_tokens=9)
        assert isinstance(made, DecidingPolicy)
        for decided in (made.decide(turns, []), await made.adecide(turns, [])):
            assert decided.policy == policy
            assert [receipt.code for receipt in decided.rejected] == codes
            assert [each.text for each in decided.operations if isinstance(each, Insert)] == texts
            assert decided.operations
            assert decided.raw == (said,)
            assert bool(decided.error) == (policy == "rules")
    assert "{'ungrounded': 1}" in caplog.text


def test_what_cannot_be_trained_is_said(weights: Weights, episodes: list[Episode], tmp_path: Path) -> None:
    policy = adapted(weights, RECIPE)
    with pytest.raises(ConfigurationError, match="no episodes"):
        train(policy, [], ENVIRONMENT, tmp_path, RECIPE)
    with pytest.raises(ConfigurationError, match="same id"):
        train(policy, [episodes[0]] * 2, ENVIRONMENT, tmp_path, RECIPE)
    policy.tokenizer.chat_template = None
    with pytest.raises(ConfigurationError, match="chat template"):
        prompt_ids(policy, ENVIRONMENT, episodes[0])


def test_the_command_trains_tests_and_writes_a_card(weights: Weights, tmp_path: Path) -> None:
    run = [
        "train", "memalpha", "--model", f"local:{tmp_path / 'base'}", "--output", str(tmp_path / "made"),
        "--timelines", "1", "--exchanges", "8", "--warmup", "1", "--steps", "1", "--group", "2",
        "--max-tokens", "12", "--rank", "2", "--save-every", "1", "--test", "1",
    ]  # fmt: skip
    done = CliRunner().invoke(app, run)
    assert done.exit_code == 0, done.output
    card = json.loads((tmp_path / "made" / "card.json").read_text())
    others = {"untrained", "warmup", "rules", "no-op", "delete-all", "copy-all", "last 4 words"}
    assert card["tests"].keys() >= {"grpo", *others}
    assert card["gains"].keys() >= {f"grpo over {other}" for other in others}
    assert card["tests"]["grpo"]["cut"] == 1.0, "12 tokens hold no reply"
    assert card["tests"]["no-op"]["cut"] == 0.0
    assert card["tests"]["rules"]["low"] <= card["tests"]["rules"]["reward"] <= card["tests"]["rules"]["high"]
    assert "untrained" in done.output
    assert "cut 100%" in done.output
    assert TrainedPolicy.from_folder(tmp_path / "made").max_tokens == 12

    writing = ["evaluate", "memory-writing", "--cases", "1", "--embeddings", "none"]
    figures = tmp_path / "writing.json"
    trained = ["--policy", f"trained:{tmp_path / 'made'}", "--output", str(figures)]
    done = CliRunner().invoke(app, [*writing, *trained])
    assert done.exit_code == 0, done.output
    left = json.loads(figures.read_text())["measures"]["fell_back"]
    assert left["count"] == left["of"] > 0, "no reply ends in 12 tokens"

    hosted = CliRunner().invoke(app, [*run, "--model", "openai:gpt-4o"])
    assert hosted.exit_code == 1
    assert "no local model" in hosted.output
