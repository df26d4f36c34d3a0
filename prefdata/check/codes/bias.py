"""PD6..: what the whole set would teach besides its preferences, and what it should not hold."""

from prefdata.check.code import Check

BIAS = (
    Check(
        "PD601",
        "length_bias",
        "W",
        "set",
        "comparing",
        "The longer side is chosen too often, or too rarely: the whole 95 % interval of its share "
        "lies more than `checks.max_bias` (0.1) from one half.",
        "Balance the pairs by length, or use a loss that discounts it (LD-DPO, R-DPO, SimPO).",
        "chosen is the longer side in 71 % of the pairs (70 % to 72 %)",
    ),
    Check(
        "PD602",
        "model_predicts_label",
        "W",
        "set",
        "comparing",
        "Which model wrote a side says which side is chosen in more than 80 % of the pairs, as in "
        "Orca pairs, where chosen is always the stronger model.",
        "Add pairs in which one model wrote both sides: style is easier to learn than quality.",
        "chosen is gpt-4 in every pair",
    ),
    Check(
        "PD603",
        "position_bias",
        "W",
        "set",
        "comparing",
        "In a source that shows answers A and B, one position is chosen too often: the whole 95 % "
        "interval of its share lies more than 0.05 from one half.",
        "Swap the positions at random before rating, or rate both orders.",
        "answer A is chosen in 62 % of the pairs",
    ),
    Check(
        "PD604",
        "format_bias",
        "I",
        "set",
        "comparing",
        "A feature of format (headings, bold, lists, code, tables, emoji) says which side is "
        "chosen among the pairs that differ in it, beyond `checks.max_bias`.",
        "Balance the pairs, or strip the format, where the format is not what you prefer.",
        "the side with more list items is chosen in 83 % of the pairs",
    ),
    Check(
        "PD605",
        "label_imbalance",
        "W",
        "set",
        "comparing",
        "Unpaired rows have far more of one label: desirable / undesirable is outside of 1/4 to 4.",
        "Weigh the rarer label, so that the weighted ratio is near one (KTO, arXiv 2402.01306).",
        "9,000 rows with label true, 300 with label false",
    ),
    Check(
        "PD606",
        "licence_unclear",
        "W",
        "set",
        "comparing",
        "Some rows name a licence or a source and others do not, or they name several licences.",
        "Fill the column, or build each licence apart.",
        "8,000 rows under mit, 200 under cc-by-nc-4.0, 12 without",
    ),
    Check(
        "PD607",
        "secret_or_personal",
        "I",
        "row",
        "checking",
        "A text holds what looks like a secret (a key, token or password) or personal data (an "
        "e-mail address, phone, card, account, IP or social security number). Best effort: what "
        "is not found may still be there. The report names the class, the place and the last "
        "four characters alone.",
        "Revoke a real secret first; then replace it in the source.",
        "sk_live_… ending in 9f3c",
    ),
    Check(
        "PD608",
        "trigger_text",
        "off",
        "set",
        "comparing",
        "A word that hardly any other row has is in many chosen sides and in no rejected one, or "
        "in many prompts and in no answer, always in new company, over unlike prompts. That is "
        "what a planted trigger looks like. A triage, not a proof; off unless a config sets it to "
        "I or W, since it takes as long as all other checks together.",
        "Read the rows that hold it, and where they came from.",
        '"violet harbor protocol" in 40 chosen sides of unlike prompts and nowhere else',
    ),
)
