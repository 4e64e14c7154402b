import sys

import pytest

from memgraph_plugin.errors import ConfigurationError, MissingExtraError
from memgraph_plugin.models.chat import load_chat_model
from memgraph_plugin.models.local import LocalChatModel
from memgraph_plugin.testing import ScriptedChatModel


def test_a_model_passes_through():
    model = ScriptedChatModel(replies=["Hi"])
    assert load_chat_model(model) is model


def test_a_path_is_a_local_model_with_its_options(tmp_path):
    model = load_chat_model(f"local:{tmp_path}", max_tokens=7)
    assert isinstance(model, LocalChatModel)
    assert (model.path, model.max_tokens) == (str(tmp_path), 7)


def test_a_pulled_model_is_found_by_its_name(tmp_path):
    home = tmp_path / "models" / "smollm2-135m-instruct"
    home.mkdir(parents=True)
    (home / "config.json").write_text("{}")
    assert load_chat_model("local:smollm2-135m-instruct", cache_dir=tmp_path).path == str(home)


def test_a_model_that_was_not_pulled_says_how_to_get_it(tmp_path):
    with pytest.raises(ConfigurationError, match="memgraph-plugin models pull smollm2-135m-instruct"):
        load_chat_model("local:smollm2-135m-instruct", cache_dir=tmp_path)


@pytest.mark.parametrize("spec", ["local:", "nobody:model", "model", ""])
def test_what_names_no_model_is_a_configuration_error(spec):
    with pytest.raises(ConfigurationError):
        load_chat_model(spec)


def test_a_missing_key_is_a_configuration_error(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigurationError, match=r"api_key|API_KEY|[Cc]redentials"):
        load_chat_model("openai:gpt-4o")


@pytest.mark.parametrize("package", ["langchain.chat_models", "langchain_openai"])
def test_a_missing_package_names_the_extra(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    if package == "langchain_openai":
        from langchain.chat_models import base

        base._get_chat_model_creator.cache_clear()
    with pytest.raises(MissingExtraError, match=r'pip install "memgraph-plugin\[openai\]"'):
        load_chat_model("openai:gpt-4o", base_url="http://127.0.0.1:9/v1")
