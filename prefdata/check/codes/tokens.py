"""PD7..: the part of the catalog that needs a tokenizer, found while pairs become tokens."""

from prefdata.check.catalog import Check, Severity

_ALL: tuple[tuple[str, str, Severity, str, str, str], ...] = (
    (
        "PD701",
        "foreign_prompt",
        "E",
        "The chat template ends the prompt differently with and without its answer, so part of "
        "what the model sees when it answers would never be trained on.",
        "Set chat_template_kwargs so that both end the same way, or severity: {PD701: W} to train "
        "on what the two have in common, as TRL does.",
        "the prompt by itself ends with '<think>', prompt + answer has no '<think>'",
    ),
    (
        "PD702",
        "no_completion_token",
        "E",
        "No token of a completion is left within max_length.",
        "Raise max_length, or cut the prompt: length_policy: cut_prompt_start.",
        "a prompt of 600 tokens with max_length: 512",
    ),
    (
        "PD703",
        "same_tokens",
        "E",
        "Chosen and rejected have the same tokens, because of their text or after a cut.",
        "Raise max_length, or leave the row out: it has no preference.",
        "two answers that differ from token 700 on, with max_length: 512",
    ),
    (
        "PD704",
        "doubled_special",
        "E",
        "BOS or EOS occurs twice in a row, which no model has seen in training.",
        "Remove it from the text: the template or the tokenizer already writes it.",
        "<s><s>[INST] …",
    ),
    (
        "PD705",
        "missing_end",
        "W",
        "A completion ends without a control token of the tokenizer, so the model would not learn "
        "when to stop. (Counted before a length policy cuts anything.)",
        "Use a chat template that ends each turn with one.",
        "… and that is all.",
    ),
    (
        "PD706",
        "empty_mask",
        "E",
        "A completion of several turns has no token that is certain to be the assistant's.",
        "Keep only the first turn of the completion, or use a template that renders turns one "
        "after the other.",
        "a completion with only a tool's turn",
    ),
    (
        "PD707",
        "template_drops",
        "E",
        "The chat template leaves out part of the pair: tools, a tool call, its arguments, a "
        "tool's result, a turn's text, all reasoning, or the reasoning of the last turn.",
        'Use a template that renders it, or severity: {PD707: "off"} to train without it.',
        "a template that renders only text, and a prompt with a tool call",
    ),
    (
        "PD708",
        "prompt_cut",
        "W",
        "The start of the prompt was cut to fit max_length.",
        "Raise max_length.",
        "length_policy: cut_prompt_start",
    ),
    (
        "PD709",
        "unknown_tokens",
        "W",
        "More than 1 % of the tokens of a prompt or completion are the tokenizer's unknown token.",
        "Use a tokenizer whose vocabulary covers the characters of these texts.",
        "Chinese text and an English word-piece vocabulary",
    ),
    (
        "PD710",
        "too_long",
        "E",
        "Prompt and completion together are longer than max_length; with cut_prompt_start, a "
        "completion by itself is.",
        "Raise max_length, or choose another length_policy.",
        "900 tokens with max_length: 512",
    ),
    (
        "PD711",
        "template_refusal",
        "E",
        "The chat template refuses the dialogue, for example because of its order of roles.",
        "Change the row as the template's message says, or use another one: chat_template: FILE.",
        "a system turn, with a template that does not support one",
    ),
    (
        "PD712",
        "no_prompt_token",
        "E",
        "No token of the prompt is left before the completions.",
        "End the prompt where a token ends: with a space or a line break, not inside a word.",
        "prompt 'Hel', chosen 'lo'",
    ),
    (
        "PD713",
        "completion_cut",
        "W",
        "The end of a completion, including its end-of-turn, was cut to fit max_length.",
        "Raise max_length.",
        "length_policy: cut_completion_end",
    ),
    (
        "PD714",
        "boundary_moved",
        "I",
        "The prompt's last characters and a completion's first ones share a token, which counts "
        "as part of the completion.",
        "Begin completions without spaces or line breaks.",
        "prompt 'assistant\\n' and completion '\\nHello' share the token '\\n\\n'",
    ),
    (
        "PD715",
        "doubled_opening",
        "E",
        "A part of a turn is opened twice, as by <think> at the end of the rendered prompt and "
        "again at the start of the answer; or an answer has its reasoning twice.",
        "Leave the tag out of the answer, give the reasoning only in its own field, or use a "
        "generation prompt that does not open it (chat_template_kwargs).",
        "a prompt that ends with '<think>', and the answer '<think>hm</think> yes'",
    ),
    (
        "PD716",
        "empty_system",
        "I",
        "The system text is empty, and the chat template has a default one or supports none, so "
        "the row is rendered as if it had no system turn.",
        "Give a system text if you want a different one than the template's.",
        '{"role": "system", "content": ""}',
    ),
    (
        "PD717",
        "name_dropped",
        "W",
        "The chat template does not write the name of a turn's speaker.",
        "Write the name into the turn's text, if the model should see it.",
        '{"role": "user", "name": "Ada", "content": "Hello"}',
    ),
    (
        "PD718",
        "template_limit",
        "E",
        "The chat template needs more than 5 s or 256 MiB for the dialogue.",
        "Leave the row out, or use another template: chat_template: FILE.",
        "a template that repeats a text as often as a number in the row",
    ),
    (
        "PD719",
        "earlier_reasoning",
        "I",
        "The chat template leaves out the reasoning of an earlier turn, as it also does at "
        "inference.",
        "No action needed.",
        '{"role": "assistant", "reasoning_content": "hm", "content": "yes"} in a prompt',
    ),
)

TOKEN_CHECKS: dict[str, Check] = {
    code: Check(code, name, severity, "row", "building", meaning, advice, example)
    for code, name, severity, meaning, advice, example in _ALL
}
