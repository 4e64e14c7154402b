"""The seam to chat models: "openai:..." and the like by LangChain, "local:<name or path>", or your own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import platformdirs
from langchain_core.language_models import BaseChatModel

from memgraph_plugin.errors import ConfigurationError, MissingExtraError
from memgraph_plugin.models.hosted import load_hosted


def load_chat_model(
    spec: str | BaseChatModel, *, base_url: str | None = None, cache_dir: Path | None = None, **options: Any
) -> BaseChatModel:
    """The chat model that `spec` names; a model passes through. Local weights load on first use.

    `base_url` is that of an OpenAI-compatible server; `cache_dir` is where pulled models are (by default the
    user's cache); `options` are the model's own, as `temperature` and `max_tokens`.

    Raises:
        ConfigurationError: the provider is unknown, or the local model was not pulled.
        MissingExtraError: an optional dependency is not installed.
    """
    if isinstance(spec, BaseChatModel):
        return spec
    provider, _, model = spec.partition(":")
    if provider == "local":
        return _local(model, cache_dir or platformdirs.user_cache_path("memgraph-plugin"), options)
    if not spec:
        raise ConfigurationError('no chat model is named: write "provider:model", as "openai:gpt-..."')
    try:
        from langchain.chat_models import init_chat_model
    except ImportError as error:
        raise MissingExtraError("openai", f"The chat model {spec!r}") from error
    loaded: BaseChatModel = load_hosted(init_chat_model, spec, base_url, **options)
    return loaded


def local_path(model: str, cache_dir: Path) -> str:
    """Where the weights are of the model that "local:" is followed by: a directory, or a name on the hub.

    Raises:
        ConfigurationError: no name, or that of a model that can be pulled and was not.
    """
    from memgraph_plugin.models.pull import default_model, mirrors, pulled_path

    if not model:
        raise ConfigurationError(f'"local:" names no model: write "local:{default_model()}", or a path')
    path = pulled_path(model, cache_dir)
    if path is None and model in mirrors():
        raise ConfigurationError(
            f"the model {model!r} is not here yet; get it by: memgraph-plugin models pull {model}"
        )
    return str(path or model)


def _local(model: str, cache_dir: Path, options: dict[str, Any]) -> BaseChatModel:
    from memgraph_plugin.models.local import LocalChatModel

    return LocalChatModel(path=local_path(model, cache_dir), **options)
