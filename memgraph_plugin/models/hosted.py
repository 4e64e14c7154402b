"""What hosted chat and embedding models share: LangChain's `init_*`, and their errors in our words."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

from memgraph_plugin.errors import ConfigurationError, MissingExtraError

Model = TypeVar("Model")


def load_hosted(load: Callable[..., Model], spec: str, base_url: str | None, **options: Any) -> Model:
    """`load(spec, ...)` of LangChain; `base_url` is that of an OpenAI-compatible server, maybe keyless.

    Raises:
        ConfigurationError: the provider is unknown, its package is not installed, or it refuses the options.
        MissingExtraError: the package for OpenAI is not installed.
    """
    if base_url:
        options["base_url"] = base_url
        if is_openai(spec) and "api_key" not in options and not os.environ.get("OPENAI_API_KEY"):
            options["api_key"] = "none"
    try:
        return load(spec, **options)
    except ImportError as error:
        if is_openai(spec):
            raise MissingExtraError("openai", f"The model {spec!r}") from error
        raise ConfigurationError(f"the model {spec!r} cannot be loaded: {error}") from error
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise ConfigurationError(f"the model {spec!r} cannot be loaded: {reason}") from error


def is_openai(spec: str) -> bool:
    return spec.partition(":")[0] == "openai"
