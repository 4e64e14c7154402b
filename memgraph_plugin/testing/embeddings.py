"""An embedder that needs no model: nearby texts get nearby vectors, the same ones on every machine."""

from __future__ import annotations

import math
import re
import zlib

from langchain_core.embeddings import Embeddings

_TRIGRAM_WEIGHT = 0.25


class HashingEmbeddings(Embeddings):
    """A hashed bag of words and of their character trigrams, as unit vectors of `dimensions` floats.

    Texts that share words are near, texts that share parts of words a little, others about orthogonal.
    """

    def __init__(self, dimensions: int = 256) -> None:
        self.dimensions = dimensions
        self.name = f"hashing:{dimensions}"

    def __repr__(self) -> str:
        return f"HashingEmbeddings(dimensions={self.dimensions})"

    def embed_query(self, text: str) -> list[float]:
        vector = [0.0] * self.dimensions
        for feature, weight in _features(text).items():
            digest = zlib.crc32(feature.encode())
            vector[(digest >> 1) % self.dimensions] += weight if digest & 1 else -weight
        length = math.sqrt(sum(x * x for x in vector))
        if length == 0.0:
            return [1.0] + [0.0] * (self.dimensions - 1)
        return [x / length for x in vector]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    async def aembed_query(self, text: str) -> list[float]:
        return self.embed_query(text)

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        return self.embed_documents(texts)


def _features(text: str) -> dict[str, float]:
    features: dict[str, float] = {}
    for word in re.findall(r"\w+", text.casefold()):
        padded = f"^{word}$"
        trigrams = [padded[start : start + 3] for start in range(len(padded) - 2)]
        for feature, weight in [(word, 1.0), *((trigram, _TRIGRAM_WEIGHT) for trigram in trigrams)]:
            features[feature] = features.get(feature, 0.0) + weight
    return features
