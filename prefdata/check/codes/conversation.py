"""PD2..: turns of a prompt and its completions that do not form a dialogue."""

from prefdata.check.code import Check

CONVERSATION = (
    Check(
        "PD201",
        "blank_prompt",
        "E",
        "row",
        "checking",
        "The prompt has no turns, or only blank ones.",
        "Remove the row, or add its prompt. Without a prompt column, texts that share no first "
        "word have no prompt.",
        '{"prompt": " ", "chosen": "a", "rejected": "b"}',
    ),
    Check(
        "PD202",
        "blank_completion",
        "E",
        "row",
        "checking",
        "The last turn of a side has neither text nor a tool call.",
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
        "A turn's role is not system, developer, user, assistant or tool.",
        "Map the role in the layout's `roles`.",
        '{"role": "narrator", "content": "Once"}',
    ),
    Check(
        "PD205",
        "repeated_role",
        "W",
        "row",
        "checking",
        "Two turns in a row have the same role, also across the end of the prompt and the start "
        "of a side. Tool results may follow each other and are not counted.",
        "Join the two turns, or restore the one that is missing between them.",
        '[{"role": "user", "content": "Hi"}, {"role": "user", "content": "Are you there?"}]',
    ),
    Check(
        "PD206",
        "late_system_turn",
        "W",
        "row",
        "checking",
        "A system turn is not the first turn of the prompt, or there is more than one.",
        "Join the system turns into the first one: many chat templates refuse or drop the others.",
        '[{"role": "user", "content": "Hi"}, {"role": "system", "content": "Be brief."}]',
    ),
    Check(
        "PD207",
        "different_prompts",
        "E",
        "row",
        "reading",
        "The dialogues of chosen and rejected differ before their last turn, so they answer "
        "different prompts.",
        "Remove the row, or read it with a layout that splits dialogues at their last common turn.",
        '{"chosen": "\\n\\nHuman: q ...", "rejected": "\\n\\nHuman: p ..."}',
    ),
    Check(
        "PD208",
        "several_turns",
        "I",
        "row",
        "checking",
        "A completion has several turns. Trainers that expect one keep only the first or the "
        "last, without a warning (axolotl #1645, #2647). Here all are kept, and turns that are "
        "not the assistant's are masked.",
        "No action needed. With a layout that splits at the last turn, earlier turns belong to "
        "the prompt.",
        '{"chosen": [assistant, user, assistant], "rejected": [assistant]}',
    ),
    Check(
        "PD209",
        "role_marker_text",
        "W",
        "row",
        "checking",
        "A completion's text names a speaker, such as `Human:` or `Assistant:`, so the model may "
        "learn to write the user's turns itself.",
        "Cut the completion before the marker, or leave the row out.",
        "I would not do that.  Human: Why not?",
    ),
    Check(
        "PD210",
        "control_token",
        "W",
        "row",
        "checking",
        "A turn's text contains a control token of the tokenizer, which could forge a turn.",
        "No action needed: it is encoded as plain text, unless a config sets control_tokens: "
        "reject (severity E) or allow.",
        '{"role": "user", "content": "<|im_end|> hello"}',
    ),
    Check(
        "PD211",
        "malformed_tool_call",
        "E",
        "row",
        "checking",
        "A tool call has no name or no JSON arguments, a tool's result names neither its call nor "
        "its tool, or a row has tool calls but defines no tools.",
        "Write calls as {type, function: {name, arguments}} and fill the `tools` column.",
        '{"role": "assistant", "tool_calls": [{"function": {"arguments": "{"}}]}',
    ),
    Check(
        "PD212",
        "stand_in_for_media",
        "W",
        "row",
        "checking",
        "A turn's text contains a placeholder for media: <image>, <video>, <audio> or a content "
        "part of such a type. (A content part that is not text at all is refused while it is "
        "read, R210.)",
        "Leave the row out: the model will not see what the answer is about.",
        '{"role": "user", "content": "<image>\\nWhat is this?"}',
    ),
    Check(
        "PD213",
        "templated_content",
        "E",
        "row",
        "checking",
        "A turn's text has already been through a chat template, so it would be templated twice.",
        "Use the text from before the template. If the template is the tokenizer's own, the rows "
        "can be trained unchanged with text: verbatim, control_tokens: allow and severity: "
        "{PD213: W}.",
        '{"role": "user", "content": "<|im_start|>user\\nq<|im_end|>"}',
    ),
    Check(
        "PD214",
        "glued_text",
        "W",
        "row",
        "checking",
        "The row is verbatim text, and its prompt and a completion join without a space, a line "
        "break or a marker: the model will see `…by step.Subtract 6`.",
        "Begin the completion with a space; or, with an instruct tokenizer, train on it as a "
        "chat: text: chat.",
        '{"prompt": "Think step by step.", "chosen": "Subtract 6.", "rejected": "No."}',
    ),
    Check(
        "PD215",
        "verbatim_dialogue",
        "E",
        "row",
        "reading",
        "The file is read as verbatim text, but this row has a system text or several turns, "
        "which verbatim text cannot represent.",
        "Set text: chat with a tokenizer that has a chat template, or write the turns into the "
        "prompt.",
        '{"system": "Be brief.", "prompt": "The sky is", "chosen": " blue.", "rejected": " up."}',
    ),
)
