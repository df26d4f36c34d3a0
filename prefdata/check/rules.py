"""The checks of rows, as polars expressions.

`FLAGS` look at single messages and are counted for each pair; `RULES` turn a pair's counts into
broken or not. The frame of messages has the fields of a message, its pair's `row`, its `part`
(prompt, chosen or rejected) and whether it is the `last` of its part.
"""

from collections.abc import Sequence

import polars as pl

ROLES = ["system", "developer", "user", "assistant", "tool"]
# What the templates of the field write around a turn: text that holds one was templated before.
TEMPLATE_MARKS = [
    *(f"<|im_start|>{role}" for role in ("system", "user", "assistant", "tool")),
    *(f"<|start_header_id|>{role}" for role in ("system", "user", "assistant")),
    *(f"<start_of_turn>{role}" for role in ("user", "model")),
    *(f"<|start|>{role}" for role in ("system", "developer", "user", "assistant")),
    *("<s>[INST]", "<|begin_of_text|>", "<|assistant|>\n", "<|user|>\n", "<|system|>\n"),
    *("<｜User｜>", "<｜Assistant｜>", "<|START_OF_TURN_TOKEN|>"),
]

content, role = pl.col("content"), pl.col("role")
in_prompt = pl.col("part") == "prompt"
ends_side = pl.col("last") & ~in_prompt
has_text = content.str.contains(r"\S")
# +1 in chosen, -1 in rejected: summed, how much more the chosen side has of something.
sign = pl.when(in_prompt).then(0).when(pl.col("part") == "chosen").then(1).otherwise(-1)
DIFFERENCES = {
    "more_turns": sign,
    "more_commas": sign * content.str.count_matches(",", literal=True).cast(pl.Int64),
    "more_stops": sign * content.str.count_matches(".", literal=True).cast(pl.Int64),
}

FLAGS: dict[str, pl.Expr] = {
    "prompt_texts": in_prompt & has_text,
    "answers": ends_side & (has_text | pl.col("tool_calls").is_not_null()),
    "assistants": ends_side & (role == "assistant"),
    "unknown_roles": ~role.is_in(ROLES),
    "templated": content.str.contains_any(TEMPLATE_MARKS),
    "malformed_calls": pl.col("malformed"),
    **DIFFERENCES,
    "controls": pl.lit(value=False),  # of a tokenizer: `flags_of` puts the tokens in
}

# In the order in which they are looked at: a pair is refused under the first that it breaks.
RULES: dict[str, pl.Expr] = {
    "PD204": pl.col("unknown_roles") > 0,
    "PD201": pl.col("prompt_texts") == 0,
    "PD203": (pl.col("assistants") < 2) & ~pl.col("one_side_empty"),
    "PD202": pl.col("answers") < 2,
    "PD211": pl.col("malformed_calls") > 0,
    "PD213": pl.col("templated") > 0,
    "PD210": pl.col("controls") > 0,
    "PD301": pl.col("same"),
}


def flags_of(control_tokens: Sequence[str]) -> dict[str, pl.Expr]:
    """The flags, with what spells a control token; tokens of spaces alone are ordinary text."""
    spelled = [token for token in control_tokens if token.strip()]
    if not spelled:
        return FLAGS
    return FLAGS | {"controls": content.str.contains_any(spelled)}


def normalized(text: pl.Expr) -> pl.Expr:
    """Text as it is compared: one Unicode form, runs of spaces as one."""
    return text.str.normalize("NFC").str.replace_all(r"\s+", " ").str.strip_chars()
