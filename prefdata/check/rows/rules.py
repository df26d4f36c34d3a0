"""Checks of rows, as polars expressions.

`FLAGS` are expressions over single messages (`CheckContext.messages`), true for a pair
if one of its messages has them; `SUMS` are summed over a pair's messages. `rules_of` combines both
into broken or not. Checks that need more than an expression are in `slow.py`, under names that
rules use in the same way.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import polars as pl

from prefdata.check.limits import CheckLimits
from prefdata.check.rows.context import CHOSEN, PROMPT, REJECTED, ROLES, CheckContext
from prefdata.check.rows.slow import LOOKS

# Markers that common chat templates write: text that contains one is already templated.
TEMPLATE_MARKS = [
    *(f"<|im_start|>{role}" for role in ("system", "user", "assistant", "tool")),
    *(f"<|start_header_id|>{role}" for role in ("system", "user", "assistant")),
    *(f"<start_of_turn>{role}" for role in ("user", "model")),
    *(f"<|start|>{role}" for role in ("system", "developer", "user", "assistant")),
    *("<s>[INST]", "<|begin_of_text|>", "<|assistant|>\n", "<|user|>\n", "<|system|>\n"),
    *("<｜User｜>", "<｜Assistant｜>", "<|START_OF_TURN_TOKEN|>"),
]
# Control tokens of common tokenizers, used if no tokenizer is named (PD210 is W then).
COMMON_CONTROLS = [
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|end_of_text|>"),
    *("<|start_header_id|>", "<|end_header_id|>", "<start_of_turn>", "<end_of_turn>"),
    *("<|endofprompt|>", "<|END_OF_TURN_TOKEN|>", "<｜end▁of▁sentence｜>", "<|channel|>"),
]
MEDIA_MARKS = [
    *(f"<{kind}>" for kind in ("image", "video", "audio")),
    *(f'"type":{space}"{kind}"' for space in ("", " ") for kind in ("image", "image_url")),
    *("<|image|>", "<|image_pad|>", "<|vision_start|>", "[IMG]", "<image_placeholder>"),
]
# U+FFFD, controls except tab and line ends, a BOM; UTF-8 read as Latin-1 or Windows-1252.
DAMAGE = (
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u{80}-\u{84}\u{86}-\u{9f}\u{feff}\u{fffd}]"
    r"|Ã[\u{80}-\u{bf}ƒŠŽšœžŸ€‚„†‡ˆ‰‹Œ‘’“”•–—˜™›]|â€[\u{80}-\u{bf}™œ“”¦¢]|Â[\u{a0}-\u{bf}]"
)
BROKEN_MARKER = (
    r"\n\n(?:Human|Assistant)\s*$|\n\nAssistants[ ,]"
    r"|(?:^|\n)(?:Hum|Humans|Assistants|Assistan|Assitant|Asistant)\s?:"
)
SPEAKER = r"\b(?:Human|Assistant|User|System|AI|Bot)\s?:"
LONG_CHARS = 1000

content, role, part = pl.col("content"), pl.col("role"), pl.col("part")
in_prompt = part == PROMPT
ends_side = pl.col("last") & ~in_prompt
ends_chosen, ends_rejected = (pl.col("last") & (part == side) for side in (CHOSEN, REJECTED))
has_text = content.str.strip_chars() != ""
says = has_text | pl.col("tool_calls").is_not_null()
# +1 in chosen, -1 in rejected: the sum is how much more the chosen side has of something.
sign = pl.when(in_prompt).then(0).when(part == CHOSEN).then(1).otherwise(-1).cast(pl.Int64)
num_chars = content.str.len_chars().cast(pl.Int64)

FLAGS: dict[str, pl.Expr] = {
    "prompt_text": in_prompt & has_text,
    "chosen_answer": ends_chosen & says,
    "rejected_answer": ends_rejected & says,
    "other_last": ends_side & (role != "assistant"),
    "unknown_role": ~role.is_in(ROLES),
    "repeated_role": (role == pl.col("previous")) & role.is_in(["user", "assistant"]),
    "late_system": (role == "system") & ~((pl.col("at") == 0) & in_prompt),
    "templated": content.str.contains_any(TEMPLATE_MARKS),
    "damaged": content.str.contains(DAMAGE),
    "broken_marker": content.str.contains(BROKEN_MARKER),
    "speaker": ~in_prompt & content.str.contains(SPEAKER),
    "media": content.str.contains_any(MEDIA_MARKS),
    "controls": content.str.contains_any(COMMON_CONTROLS),  # or the tokenizer's: `flags_of`
}

SUMS: dict[str, pl.Expr] = {
    "more_commas": sign * content.str.count_matches(",", literal=True).cast(pl.Int64),
    "more_stops": sign * content.str.count_matches(".", literal=True).cast(pl.Int64),
    "chars_prompt": pl.when(in_prompt).then(num_chars).otherwise(0),
    "chars_chosen": pl.when(part == CHOSEN).then(num_chars).otherwise(0),
    "chars_rejected": pl.when(part == REJECTED).then(num_chars).otherwise(0),
}

longer = pl.max_horizontal("chars_chosen", "chars_rejected")
shorter = pl.min_horizontal("chars_chosen", "chars_rejected")
distance = pl.coalesce(pl.col("margin"), pl.col("score_chosen") - pl.col("score_rejected"))


def rules_of(limits: CheckLimits) -> dict[str, pl.Expr]:
    """Return the rules in order of precedence: a pair is refused under the first one it breaks."""
    ratio = limits.max_length_ratio
    return {
        "PD204": pl.col("unknown_role"),
        "PD201": ~pl.col("prompt_text"),
        "PD203": pl.col("other_last"),
        "PD202": ~(pl.col("chosen_answer") & pl.col("rejected_answer")),
        "PD211": pl.col("malformed"),
        "PD213": pl.col("templated"),
        "PD210": pl.col("controls"),
        "PD301": pl.col("same"),
        "PD304": (pl.col("score_rejected") > pl.col("score_chosen")) | (pl.col("margin") < 0),
        "PD305": _out_of_range(limits.score_range),
        "PD307": pl.col("chosen_rank") > pl.col("rejected_rank"),
        "PD503": pl.col("overlaps"),
        "PD106": pl.col("damaged"),
        "PD107": pl.col("broken_marker"),
        "PD205": pl.col("repeated_role"),
        "PD206": pl.col("late_system"),
        "PD208": (pl.col("turns_chosen") > 1) | (pl.col("turns_rejected") > 1),
        "PD209": pl.col("speaker"),
        "PD212": pl.col("media"),
        "PD214": pl.col("glued"),
        "PD302": pl.col("near") & ~pl.col("same"),
        "PD306": pl.col("overrated"),
        "PD308": pl.lit(value=False) if limits.min_margin is None else distance < limits.min_margin,
        "PD309": pl.col("turns_down"),
        "PD310": (pl.max_horizontal("chars_prompt", longer) > limits.max_chars)
        | ((longer > LONG_CHARS) & (longer > ratio * shorter)),
        "PD311": pl.col("cut"),
        "PD312": pl.col("other_language"),
        "PD313": pl.col("loops"),
        "PD607": pl.col("private"),
    }


def _out_of_range(score_range: tuple[float, float] | None) -> pl.Expr:
    if score_range is None:
        return pl.lit(value=False)
    low, high = score_range
    return pl.any_horizontal(
        ~pl.col(name).is_between(low, high) for name in ("score_chosen", "score_rejected")
    )


def flags_of(control_tokens: Sequence[str]) -> dict[str, pl.Expr]:
    """Return FLAGS, with the given control tokens; tokens of only spaces are ordinary text."""
    spelled = [token for token in control_tokens if token.strip()]
    if not spelled:
        return FLAGS
    return FLAGS | {"controls": content.str.contains_any(spelled)}


def evaluate(
    scene: CheckContext, codes: Iterable[str], control_tokens: Sequence[str] = ()
) -> pl.DataFrame:
    """Return which rules each pair breaks: one boolean column per code, in the rules' order.

    Only what the codes need is computed.
    """
    asked = set(codes)
    rules = {code: rule for code, rule in rules_of(scene.limits).items() if code in asked}
    names = {name for rule in rules.values() for name in rule.meta.root_names()}
    looks = {name: look for name, look in LOOKS.items() if name in names}
    names = names.union(*(look.needs for look in looks.values()))
    flags = {name: flag for name, flag in flags_of(control_tokens).items() if name in names}
    sums = {name: one for name, one in SUMS.items() if name in names}
    facts = scene.messages.lazy().select("row", **flags, **sums).collect()
    rows, height = facts["row"].to_numpy(), scene.batch.num_rows
    pairs = scene.pair_frame().with_columns(
        *(pl.Series(name, scene.flags(facts["row"].filter(facts[name]))) for name in flags),
        *(
            pl.Series(name, np.bincount(rows, facts[name].to_numpy(), height).astype(np.int64))
            for name in sums
        ),
    )
    pairs = pairs.with_columns(
        pl.Series(name, look.see(scene, pairs)) for name, look in looks.items()
    )
    return pairs.select(rule.fill_null(value=False).alias(code) for code, rule in rules.items())
