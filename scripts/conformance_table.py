"""Write docs/conformance.md of a run of the conformance suite; `--check` compares it with what is known.

The tests of LangGraph's stores fail where DIVERGENCES say so, and strictly: the document of a green run is
the one that DIVERGENCES make, which is what `--check`, and a test, compare without running anything.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

from memgraph_plugin.testing.conformance import StoreConformance
from memgraph_plugin.testing.conformance.expiry import ExpiryConformance

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "conformance.md"
THEIRS = ("InMemoryStore", "PostgresStore", "AsyncPostgresStore")
OURS = {
    "InMemoryMemoryStore": "tests/test_in_memory.py::TestInMemoryMemoryStore",
    "PostgresMemoryStore": "tests/test_postgres.py::TestPostgres",
    "AsyncPostgresMemoryStore": "tests/test_postgres.py::TestAsyncPostgres",
}
STORES = (*THEIRS, *OURS)
Outcomes = dict[str, dict[str, str]]


def _in_memory(reason: str) -> dict[str, str]:
    return {"InMemoryStore": reason}


def _postgres(reason: str) -> dict[str, str]:
    return dict.fromkeys(("PostgresStore", "AsyncPostgresStore"), reason)


_STALE = "A new value does not remove the vectors of the old one."
_AS_TEXT = "Numbers are compared as text: 10 comes before 9."
_UNCHECKED = "A batch does not check namespaces; only the single methods do."
_DRIVER = "What JSON in Postgres cannot hold comes back as an error of the driver, which is no ValueError."
_NULL = "A missing field is not null here, though it is for InMemoryStore."

DIVERGENCES: dict[str, dict[str, str]] = {
    "test_a_filter_means_what_it_says[true]": _in_memory("True is 1: values are compared as Python does."),
    "test_a_filter_means_what_it_says[fraction]": {
        **_in_memory("A comparison raises TypeError where the field is missing."),
        **_postgres(_AS_TEXT),
    },
    **{
        f"test_a_filter_means_what_it_says[{name}]": _postgres(_AS_TEXT)
        for name in ("gt", "gte", "lt", "lte", "range")
    },
    "test_a_filter_means_what_it_says[null]": _postgres(_NULL),
    "test_a_filter_means_what_it_says[ne of a missing field]": _postgres(_NULL),
    "test_a_filter_means_what_it_says[dict]": _postgres("A dict is taken for operators: ValueError."),
    "test_a_label_with_a_dot_or_without_a_letter_is_refused[dot]": _in_memory(_UNCHECKED),
    "test_a_label_with_a_dot_or_without_a_letter_is_refused[empty]": _in_memory(_UNCHECKED),
    "test_a_label_with_a_dot_or_without_a_letter_is_refused[NUL]": _in_memory(_UNCHECKED),
    "test_a_label_with_a_dot_or_without_a_letter_is_refused[number]": _in_memory(_UNCHECKED),
    "test_an_unknown_operation_is_refused": _postgres("It is passed over in silence."),
    "test_an_update_that_is_not_indexed_forgets_what_was": {**_in_memory(_STALE), **_postgres(_STALE)},
    "test_an_update_with_fewer_texts_forgets_the_others": {**_in_memory(_STALE), **_postgres(_STALE)},
    "test_callers_cannot_change_what_is_stored": _in_memory("Callers hold what is stored itself."),
    "test_equal_texts_of_one_batch_are_both_found": _in_memory(
        "Putting one text twice in a batch raises ValueError."
    ),
    "test_one_without_items_is_not_listed": _in_memory("A namespace is listed for ever."),
    "test_overwriting_keeps_the_time_of_creation": _in_memory("An overwritten item is created anew."),
    "test_pages_are_disjoint_and_complete": _postgres(
        "What was put in one batch has one time, and no order: pages repeat items and leave some out."
    ),
    "test_pages_of_a_query_are_disjoint_and_complete": _postgres(
        "What a query looks through is cut without regard to the offset: later pages are empty."
    ),
    "test_reading_lets_live_again_as_long": _postgres(
        "A time to live is rounded to minutes, and what is read gets the rounded one: 2 seconds become none."
    ),
    "test_the_last_changed_comes_first": _in_memory("Items come in the order they were first put."),
    **{
        f"test_what_is_no_json_is_kept_as_it_is_or_refused_with_all_of_its_batch[{name}]": _postgres(_DRIVER)
        for name in ("NaN", "infinity", "NUL")
    },
    "test_what_is_no_json_is_kept_as_it_is_or_refused_with_all_of_its_batch[key that is no text]": _postgres(
        "Keys become text without a word."
    ),
}
"""What is known to fail: the test, the store, why."""

INTRODUCTION = """\
# Conformance

LangGraph has a suite of tests for its checkpointers, and none for its stores. `memgraph_plugin.testing` has
one, for any `BaseStore`:

```python
import pytest

from memgraph_plugin.testing import StoreConformance
from memgraph_plugin.testing.conformance import INDEX, TTL


class TestMyStore(StoreConformance):
    @pytest.fixture
    async def store(self):
        async with MyStore(index=INDEX, ttl=TTL) as store:
            yield store
```

Below is what it says of the stores of langgraph-checkpoint {base} and langgraph-checkpoint-postgres
{postgres}, and of our three. This page is written by `scripts/conformance_table.py`; a test keeps it current.
A dash: the store has no such part. Where LangGraph's own stores differ from each other, the test asks for
what `PostgresStore` does; where only one answer can be meant, for that one.

"""


def tests() -> Iterator[tuple[str, str]]:
    """The suite's topics and tests, as pytest calls them."""
    for topic in StoreConformance.__bases__:
        for name, function in vars(topic).items():
            if name.startswith("test_"):
                marks = [m for m in getattr(function, "pytestmark", ()) if m.name == "parametrize"]
                cases = [f"[{case}]" for mark in marks for case in mark.kwargs["ids"]] or [""]
                yield from ((topic.__name__, name + case) for case in cases)


def expected() -> Outcomes:
    """What each test is known to say of each store: "" where it passes, else why not; "-": skipped."""
    names = [name for _, name in tests()]
    if unknown := DIVERGENCES.keys() - set(names):
        raise ValueError(f"No such tests: {unknown}")
    outcomes = {name: {store: DIVERGENCES.get(name, {}).get(store, "") for store in STORES} for name in names}
    for topic, name in tests():
        if topic == ExpiryConformance.__name__:
            outcomes[name]["InMemoryStore"] = "-"
    return outcomes


def measured() -> Outcomes:
    """What a run says."""
    names = [name for _, name in tests()]
    classes = {f"Test{store}": store for store in THEIRS}
    classes |= {node.partition("::")[2]: store for store, node in OURS.items()}
    nodes = [f"tests/test_conformance.py::Test{store}::{name}" for store in THEIRS for name in names]
    nodes += [f"{node}::{name}" for node in OURS.values() for name in names]
    outcomes: Outcomes = {name: {} for name in names}
    with tempfile.TemporaryDirectory() as folder:
        report, arguments = Path(folder) / "report.xml", Path(folder) / "arguments"
        arguments.write_text("\n".join(nodes))
        command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", f"@{arguments}"]
        if subprocess.run(command, cwd=ROOT).returncode:
            sys.exit("conformance_table: the run is not green; mend it, or add to DIVERGENCES")
        for case in ET.parse(report).iter("testcase"):
            store = classes[case.attrib["classname"].rpartition(".")[2]]
            skipped = case.find("skipped")
            failed = skipped is not None and skipped.attrib["type"] == "pytest.xfail"
            message = "" if skipped is None else skipped.attrib["message"] if failed else "-"
            outcomes[case.attrib["name"]][store] = message
    return outcomes


def document(outcomes: Mapping[str, Mapping[str, str]]) -> str:
    """The page."""
    reasons: list[str] = []

    def cell(outcome: str) -> str:
        if outcome in ("", "-"):
            return outcome or "yes"
        if outcome not in reasons:
            reasons.append(outcome)
        return f"no ({reasons.index(outcome) + 1})"

    versions = {"base": version("langgraph-checkpoint"), "postgres": version("langgraph-checkpoint-postgres")}
    lines = [INTRODUCTION.format(**versions)]
    lines += ["| what is tested | " + " | ".join((*THEIRS, "ours")) + " |\n", "|---" * 5 + "|\n"]
    for said, row in _rows(outcomes):
        ours = {row[store] for store in OURS}
        cells = [cell(row[store]) for store in THEIRS] + [cell(outcome) for outcome in sorted(ours)]
        lines.append(f"| {said} | " + " | ".join(cells) + " |\n")
    lines += ["\n", *(f"{n}. {reason}\n" for n, reason in enumerate(reasons, 1))]
    return "".join(lines)


def _rows(outcomes: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[str, Mapping[str, str]]]:
    """One a test, or one a case of it where the cases differ."""
    cases: dict[str, list[str]] = {}
    for name in outcomes:
        cases.setdefault(name.partition("[")[0], []).append(name)
    for test, names in cases.items():
        said = test.removeprefix("test_").replace("_", " ").replace("json", "JSON")
        if all(outcomes[name] == outcomes[names[0]] for name in names):
            yield said, outcomes[names[0]]
        else:
            yield from ((f"{said}: {name.partition('[')[2][:-1]}", outcomes[name]) for name in names)


def main() -> None:
    if "--check" in sys.argv:
        if not DOCUMENT.exists() or DOCUMENT.read_text("utf-8") != document(expected()):
            sys.exit("docs/conformance.md is not current; run scripts/conformance_table.py")
        return
    DOCUMENT.parent.mkdir(exist_ok=True)
    DOCUMENT.write_text(document(measured()), "utf-8")


if __name__ == "__main__":
    main()
