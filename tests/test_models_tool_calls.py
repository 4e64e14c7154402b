import pytest

from memgraph_plugin.models.tool_calls import describe_tools, forced_call_schema, parse_tool_calls

CALL = '{"name": "add", "arguments": {"a": 1}}'
ADD = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
SAY = {"type": "function", "function": {"name": "say"}}


@pytest.mark.parametrize(
    ("text", "rest", "arguments"),
    [
        (CALL, "", [{"a": 1}]),
        (f"<tool_call>\n{CALL}\n</tool_call>", "", [{"a": 1}]),
        (f"<tool_call>{CALL}", "", [{"a": 1}]),
        (f"Let me see.\n```json\n{CALL}\n```", "Let me see.", [{"a": 1}]),
        (f"```\n{CALL}\n```\nDone.", "Done.", [{"a": 1}]),
        (f"<tool_call>{CALL}</tool_call><tool_call>{CALL}</tool_call>", "", [{"a": 1}, {"a": 1}]),
        (f"[{CALL}, {CALL}]", "", [{"a": 1}, {"a": 1}]),
        ('{"name": "add", "parameters": {"a": 1}}', "", [{"a": 1}]),
        ('{"name": "add", "arguments": "{\\"a\\": 1}"}', "", [{"a": 1}]),
        ('{"name": "add"}', "", [{}]),
    ],
)
def test_calls_are_read_however_they_are_written(text, rest, arguments):
    content, calls = parse_tool_calls(text, {"add"})
    assert content == rest
    assert [call["args"] for call in calls] == arguments
    assert len({call["id"] for call in calls}) == len(calls)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "No call.",
        '{"name": "other", "arguments": {}}',
        '{"answer": 3}',
        '{"name": "add", "arguments": [1]}',
        '{"name": "add", "arguments": {"a": ',
        "f(x) = {x | x > 0} [{}]  ",
    ],
)
def test_what_is_no_call_stays_as_it_is(text):
    assert parse_tool_calls(text, {"add"}) == (text, [])


def test_a_forced_call_is_of_the_tool_named_or_of_any():
    assert forced_call_schema([ADD, SAY], "say")["properties"]["name"] == {"const": "say"}
    assert [
        part["properties"]["name"]["const"] for part in forced_call_schema([ADD, SAY], "any")["anyOf"]
    ] == [
        "add",
        "say",
    ]


def test_tools_are_described_by_name():
    assert '"name": "add"' in describe_tools([ADD, SAY])
