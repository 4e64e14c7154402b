"""Search on Postgres: what answers a query, by an index where a namespace has one. This is
the source; `scripts/generate_sync.py` makes `searching.py` of it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from memgraph_plugin.errors import ConfigurationError
from memgraph_plugin.store import indexing, records
from memgraph_plugin.store.async_only import AsyncOnly
from memgraph_plugin.store.base import Ranking
from memgraph_plugin.store.database_async import AsyncDatabase, Record
from memgraph_plugin.store.indexes_async import AsyncIndexes
from memgraph_plugin.store.ranking import QUESTION_CHARACTERS
from memgraph_plugin.store.sealing import Sealer
from memgraph_plugin.store.storable import check_namespace
from memgraph_plugin.store.vectors import Model
from memgraph_plugin.types import Namespace


class AsyncSearching(AsyncOnly):
    """The part of the Postgres store that searches, and whose owner makes indexes and drops them."""

    language: str
    _database: AsyncDatabase
    _indexes: AsyncIndexes
    _model: Model | None
    _sealer: Sealer | None

    async def acreate_index(self, namespace: Namespace, *, below: bool = False) -> bool:
        """Make the indexes of a namespace now, and wait for them; with `below`, also of all those under it.

        They stay until `drop_index`, whatever the size; others read and write meanwhile.

        Returns: whether they are ready; False where another process is making them.

        Raises:
            ConfigurationError: the store has no vectors, or of more dimensions than pgvector indexes.
            StoreError: this role does not own the tables, or the database failed.
        """
        check_namespace(namespace)
        await self._open()
        dimension = self._model[1] if self._model else None
        dimension = indexing.indexable(dimension, self._database.layout.vector_type)
        named = records.encode(namespace)
        return bool(await self._indexes.create(named, dimension, below=below, asked=True))

    async def adrop_index(self, namespace: Namespace, *, below: bool = False) -> bool:
        """Drop the indexes of a namespace; whether there were any. Searches then read every row again."""
        check_namespace(namespace)
        await self._open()
        return await self._indexes.drop(records.encode(namespace), below=below)

    async def _search(
        self,
        scope: str,
        namespace: Namespace,
        text: str,
        filter: Mapping[str, Any] | None,  # noqa: A002
        wanted: Mapping[str, Any],
        ranking: Ranking | Literal["words"],
    ) -> list[Record]:
        parameters = {
            **wanted,
            **records.filter_parameters(filter),
            "namespace": records.encode(namespace),
        }
        if filter and self._sealer is not None:
            raise ConfigurationError("A sealed store cannot filter: the database does not see the values.")
        await self._open()
        if not text.strip():
            return await self._database.fetch("latest", parameters, scope)
        towards = None if ranking == "words" else await self._towards(text)
        parameters |= self._question(towards)
        parameters |= {"language": self.language, "query": text[:QUESTION_CHARACTERS]}
        name = "nearest" if ranking == "vector" and towards is not None else "recall"
        dimension = self._model[1] if self._model else None
        return await self._indexes.search(name, parameters, scope, dimension=dimension)

    def _question(self, towards: Sequence[float] | None) -> dict[str, Any]:
        """The parameters of `{vector}`: that of a query, and the model that made it."""
        model, dimension = self._model or (None, None)
        vector = None if towards is None else self._database.layout.vector(towards)
        return {"vector": vector, "model": model, "dimension": dimension}

    @abstractmethod
    async def _open(self) -> None:
        """Check what stands in the database and open the connections, the first time."""

    @abstractmethod
    async def _towards(self, query: str) -> Sequence[float] | None:
        """The vector of a query, of length 1; None without a model, or where it points nowhere."""
