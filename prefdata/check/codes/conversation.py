"""PD2..: whether the turns of a prompt and its completions make a dialogue."""

from prefdata.check.code import Check

CONVERSATION = (
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
        "PD205",
        "repeated_role",
        "W",
        "row",
        "checking",
        "Two turns of one role follow each other, the last of the prompt and the first of a side "
        "included; tool results, which may, are not counted.",
        "Join the two turns, or find the one that is missing between them.",
        '[{"role": "user", "content": "Hi"}, {"role": "user", "content": "Are you there?"}]',
    ),
    Check(
        "PD206",
        "late_system_turn",
        "W",
        "row",
        "checking",
        "A system turn does not open the prompt, or there is more than one.",
        "Join the system turns into the first one: many chat templates refuse or drop the others.",
        '[{"role": "user", "content": "Hi"}, {"role": "system", "content": "Be brief."}]',
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
        "PD208",
        "several_turns",
        "I",
        "row",
        "checking",
        "A completion spans several turns; trainers that expect one keep the first or the last of "
        "them without a word (axolotl #1645, #2647). Here all are kept, and what is not the "
        "assistant's is masked.",
        "Nothing to mend; parted at the last turn, the earlier ones belong to the prompt.",
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
        "A turn's text spells a control token of the tokenizer, which could forge a turn.",
        "Nothing to mend: it is encoded as plain text, unless a config says control_tokens: reject "
        "(severity E) or allow.",
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
        "PD212",
        "stand_in_for_media",
        "W",
        "row",
        "checking",
        "A turn's text stands for something that is not text: <image>, <video>, <audio> or a "
        "content part of such a type. (A content part that is no text at all is refused while "
        "it is read, R210.)",
        "Leave the row out: the answer is about something that the model will not see.",
        '{"role": "user", "content": "<image>\\nWhat is this?"}',
    ),
    Check(
        "PD213",
        "templated_content",
        "E",
        "row",
        "checking",
        "A turn's text has been through a chat template already, so it would be templated twice.",
        "Use the text from before the template. Rows whose template is the tokenizer's own are "
        "trained as they are with text: verbatim, control_tokens: allow and "
        "severity: {PD213: W}.",
        '{"role": "user", "content": "<|im_start|>user\\nq<|im_end|>"}',
    ),
    Check(
        "PD214",
        "glued_text",
        "W",
        "row",
        "checking",
        "The row is verbatim text, and its prompt and a completion meet without a space, a line "
        "break or a marker: the model will see `…by step.Subtract 6`.",
        "Let the completion begin with a space, or, with an instruct tokenizer, train on it as a "
        "chat: text: chat.",
        '{"prompt": "Think step by step.", "chosen": "Subtract 6.", "rejected": "No."}',
    ),
    Check(
        "PD215",
        "verbatim_dialogue",
        "E",
        "row",
        "reading",
        "The file is read as verbatim text, and this row has a system text or several turns, for "
        "which verbatim text has no place.",
        "Set text: chat with a tokenizer that has a chat template, or write the turns into the "
        "prompt.",
        '{"system": "Be brief.", "prompt": "The sky is", "chosen": " blue.", "rejected": " up."}',
    ),
)
