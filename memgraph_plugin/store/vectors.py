"""Whose vectors a database holds, by name and dimension: others cannot be compared with them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from memgraph_plugin.errors import EmbeddingMismatch

Model = tuple[str, int]

MENDING = "Open it with the model that the database names, or run `memgraph-plugin migrate --reembed`."
"""What to do about vectors of another model."""


def model_of(record: Mapping[str, Any]) -> Model:
    return record["name"], record["dimension"]


def refuse_other(held: Model, given: Model) -> None:
    """
    Raises:
        EmbeddingMismatch: these are not the same model.
    """
    if held != given:
        raise EmbeddingMismatch(
            f"The database holds vectors of {held[0]} ({held[1]} dimensions); "
            f"this store was given {given[0]} ({given[1]}). {MENDING}"
        )


def fitting(vector: list[float], model: Model | None) -> list[float]:
    """
    Raises:
        EmbeddingMismatch: the vector has another length than those of the model.
    """
    dimension = model[1] if model else None
    if len(vector) != dimension:
        raise EmbeddingMismatch(
            f"The store's vectors have {dimension} dimensions, this one has {len(vector)}."
        )
    return vector
