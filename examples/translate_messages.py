"""Translate PostgreSQL's messages: a small model trained in minutes, then its own drafts as its memory.

The pairs are those of Debian's Postgres 15 (apt-get install postgresql-15); where it is not, a few made up.
Needs: pip install "memgraph-plugin[local,selfmem]". No model is loaded, no database is used. 2,000 pairs and
20 epochs take some ten minutes on two cores; PAIRS=5500 EPOCHS=40 is better, PAIRS=60 EPOCHS=1 a glimpse.
"""

import gettext
import os
import tempfile
from pathlib import Path

from memgraph_plugin.selfmem.corpus import split
from memgraph_plugin.selfmem.loop import Plan, drive
from memgraph_plugin.selfmem.metrics import metric
from memgraph_plugin.selfmem.retriever import BM25Retriever
from memgraph_plugin.selfmem.selectors import ConsensusSelector
from memgraph_plugin.selfmem.train_generator import Recipe, new_generator, train
from memgraph_plugin.types import Example

PAIRS, EPOCHS = int(os.environ.get("PAIRS", "2000")), int(os.environ.get("EPOCHS", "20"))
CATALOGUE = Path("/usr/share/locale/de/LC_MESSAGES/postgres-15.mo")
NOUNS = {"table": "Tabelle", "column": "Spalte", "index": "Index", "role": "Rolle", "view": "Sicht"}
ENDS = {"does not exist": "existiert nicht", "already exists": "existiert bereits"}


def messages() -> dict[str, str]:
    if not CATALOGUE.exists():
        return {f'{noun} "%s" {end}': f"{NOUNS[noun]} »%s« {ENDS[end]}" for noun in NOUNS for end in ENDS}
    with CATALOGUE.open("rb") as file:
        catalogue = vars(gettext.GNUTranslations(file))["_catalog"]  # nothing public lists them all
    return {source: target for source, target in catalogue.items() if isinstance(source, str) and source}


pairs = [Example(source=source, target=target, key=source) for source, target in messages().items()]
pairs = pairs[:: max(1, len(pairs) // PAIRS)]
parts = split(pairs, dev=0, test=len(pairs) // 10)
retriever, generator = BM25Retriever(parts.train), new_generator("joint", parts.train)
with tempfile.TemporaryDirectory() as folder:
    generator = train(generator, parts.train, retriever, Path(folder), Recipe(epochs=EPOCHS))
print(f"learned from {len(parts.train)} pairs")

sources, references = [each.source for each in parts.test], [each.target for each in parts.test]
for rounds in (0, 1):
    done = drive(retriever, generator, ConsensusSelector(), sources, Plan(rounds=rounds, pool=8))
    bleu = metric("bleu").corpus([each.hypothesis.text for each in done], references)
    print(f"BLEU after {rounds} rounds: {bleu:.2f}")
first = done[0]
print(f"source:  {first.request.source}\nmemory:  {first.request.memory}\nwritten: {first.hypothesis.text}")
