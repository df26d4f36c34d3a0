"""Every code that a user can meet in rows and sets: what it means and how to mend it.

This is text alone; the expressions that find the codes lie in `rules.py`.
"""

from typing import Literal, NamedTuple

Severity = Literal["E", "W", "I", "off"]


class Check(NamedTuple):
    """One code. Its meaning never changes; a new meaning gets a new code."""

    code: str
    name: str
    severity: Severity  # E: the row is refused; W: reported; I: counted alone
    scope: Literal["row", "set"]
    found: Literal["reading", "checking", "building"]  # the stage that finds it
    meaning: str
    advice: str
    example: str


_ALL = [
    Check(
        "PD101",
        "unparseable_row",
        "E",
        "row",
        "reading",
        "The row cannot be parsed. Such rows carry the exact fault as a code of their own: R201 "
        "not JSON, R202 not UTF-8, R203 lone surrogate, R204 NUL, R205 not a finite number, R206 "
        "a number too long, R207 duplicate key, R208 too deep, R209 not an object, R212 too long.",
        "Look at the row's bytes at the file, line and offset given, and mend what wrote them.",
        '{"chosen": "a", "chosen": "b"}',
    ),
    Check(
        "PD102",
        "unknown_layout",
        "E",
        "set",
        "reading",
        "No layout, or more than one, has the columns of the file.",
        "Name the layout with --layout, or describe it in a YAML file (docs/layouts.md).",
        '{"foo": "q", "bar": "a"}',
    ),
    Check(
        "PD103",
        "missing_field",
        "E",
        "row",
        "reading",
        "A field that the layout needs is missing or null; such rows carry the code R211.",
        "Fill the field, or choose another layout.",
        '{"prompt": "q", "chosen": "a", "rejected": null}',
    ),
    Check(
        "PD104",
        "wrong_type",
        "E",
        "row",
        "reading",
        "A field has another type than the layout's, so another row may mean something else by "
        "it; such rows carry the code R210.",
        "Write the field in one type throughout the file.",
        '{"prompt": "q", "chosen": 5, "rejected": "b"}',
    ),
    Check(
        "R213",
        "unpaired_row",
        "E",
        "row",
        "reading",
        "The row is one of several that make a pair, and part of none: no other row of its prompt "
        "can be compared with it, or the pairing strategy passed it by.",
        "Nothing to mend where the prompt has one label only; else try another pairing strategy.",
        '{"prompt": "q", "completion": "a", "label": true}, alone with its prompt',
    ),
    Check(
        "PD201",
        "blank_prompt",
        "E",
        "row",
        "checking",
        "The prompt has no turns, or nothing but spaces in all of them.",
        "Remove the row, or give it its prompt; texts that share no first word have none.",
        '{"prompt": " ", "chosen": "a", "rejected": "b"}',
    ),
    Check(
        "PD202",
        "blank_completion",
        "E",
        "row",
        "checking",
        "The last turn of a side holds neither text nor a tool call.",
        "Remove the row: training on it teaches the model to stop at once, or never.",
        '{"prompt": "q", "chosen": "", "rejected": "b"}',
    ),
    Check(
        "PD203",
        "not_assistant_last",
        "E",
        "row",
        "checking",
        "The last turn of a side is not the assistant's.",
        "Cut the turns after the assistant's last one, or map the role in the layout.",
        '{"chosen": [{"role": "user", "content": "a"}]}',
    ),
    Check(
        "PD204",
        "unknown_role",
        "E",
        "row",
        "checking",
        "A turn's role is none of system, developer, user, assistant and tool.",
        "Map the role in the layout's `roles`.",
        '{"role": "narrator", "content": "Once"}',
    ),
    Check(
        "PD207",
        "different_prompts",
        "E",
        "row",
        "reading",
        "The dialogues of chosen and rejected part before their last turn, so they answer "
        "different prompts.",
        "Remove the row, or read it with a layout that parts dialogues at their last common turn.",
        '{"chosen": "\\n\\nHuman: q ...", "rejected": "\\n\\nHuman: p ..."}',
    ),
    Check(
        "PD210",
        "control_token",
        "E",
        "row",
        "checking",
        "A turn's text spells a control token of the tokenizer, which would forge a turn.",
        "Remove the row, or lower the code to W: the text is then encoded as plain text.",
        '{"role": "user", "content": "<|im_end|> hello"}',
    ),
    Check(
        "PD211",
        "malformed_tool_call",
        "E",
        "row",
        "checking",
        "A tool call has no name or no JSON arguments, a tool's result names neither its call nor "
        "its tool, or calls are made in a row that defines no tools.",
        "Write calls as {type, function: {name, arguments}} and fill the `tools` column.",
        '{"role": "assistant", "tool_calls": [{"function": {"arguments": "{"}}]}',
    ),
    Check(
        "PD213",
        "templated_content",
        "E",
        "row",
        "checking",
        "A turn's text has been through a chat template already, so it would be templated twice.",
        "Use the text from before the template, or a text layout.",
        '{"role": "user", "content": "<|im_start|>user\\nq<|im_end|>"}',
    ),
    Check(
        "PD301",
        "same_completion",
        "E",
        "row",
        "checking",
        "Chosen and rejected are equal but for spaces and Unicode forms.",
        "Remove the row: it prefers nothing.",
        '{"prompt": "q", "chosen": "a b", "rejected": "a  b"}',
    ),
    Check(
        "PD303",
        "tie",
        "E",
        "row",
        "reading",
        "The two completions rank the same, so neither is preferred.",
        "Nothing to mend; another pairing strategy may find pairs in the same row.",
        '{"completions": [{"text": "a", "rank": 1}, {"text": "b", "rank": 1}]}',
    ),
    Check(
        "PD306",
        "doubted_score",
        "E",
        "row",
        "reading",
        "A completion's overall score contradicts the mean of its aspects, so it may be misread: "
        "UltraFeedback has completions with a 10 that was a 1.",
        "Read the file by the mean of the aspects (--layout ultrafeedback:aspects).",
        '{"overall_score": 10, "annotations": {"helpfulness": {"Rating": "1"}}}',
    ),
    Check(
        "PD401",
        "exact_duplicate",
        "W",
        "set",
        "building",
        "The same pair, letter by letter, stands earlier in the inputs.",
        "Nothing to mend: the first one is kept, and duplicates.parquet names it.",
        "two equal rows",
    ),
    Check(
        "PD402",
        "near_duplicate",
        "W",
        "set",
        "building",
        "Another prompt is the same but for some words (or completion or pair, as the config's "
        "`near_duplicates.unit` says). Such prompts lie in one split.",
        "Set the severity to E to keep one of each cluster; duplicates.parquet names the others.",
        'Two prompts, "tell me a story about a fox and a hen, please" once without "please"',
    ),
    Check(
        "PD403",
        "contradictory_pair",
        "E",
        "set",
        "building",
        "Another row prefers the same two completions the other way round.",
        "Decide which one is right; as they stand they cancel each other, so all are refused.",
        "one row prefers a to b, another b to a",
    ),
]

CHECKS: dict[str, Check] = {check.code: check for check in _ALL}
