"""PD6..: biases of the whole set, unclear licences, and private or planted text."""

from prefdata.check.code import Check

BIAS = (
    Check(
        "PD601",
        "length_bias",
        "W",
        "set",
        "comparing",
        "The longer side is chosen too often or too rarely: the whole 95 % interval of its share "
        "is more than `checks.max_bias` (0.1) away from one half.",
        "Balance the pairs by length, or use a loss that corrects for it (LD-DPO, R-DPO, SimPO).",
        "chosen is the longer side in 71 % of the pairs (70 % to 72 %)",
    ),
    Check(
        "PD602",
        "model_predicts_label",
        "W",
        "set",
        "comparing",
        "The models that wrote the two sides predict which side is chosen, with an accuracy above "
        "80 %, as in Orca pairs, where chosen is always from the stronger model.",
        "Add pairs with both sides from one model: style is easier to learn than quality.",
        "chosen is from gpt-4 in every pair",
    ),
    Check(
        "PD603",
        "position_bias",
        "W",
        "set",
        "comparing",
        "The source shows answers A and B, and one position is chosen too often: the whole 95 % "
        "interval of its share is more than 0.05 away from one half.",
        "Swap the positions at random before rating, or rate both orders.",
        "answer A is chosen in 62 % of the pairs",
    ),
    Check(
        "PD604",
        "format_bias",
        "I",
        "set",
        "comparing",
        "A formatting feature (headings, bold, lists, code, tables, emoji) predicts which side is "
        "chosen: among the pairs that differ in it, the share whose chosen side has more is "
        "beyond `checks.max_bias` from one half.",
        "Balance the pairs, or strip the formatting if it is not what you prefer.",
        "the side with more list items is chosen in 83 % of the pairs",
    ),
    Check(
        "PD605",
        "label_imbalance",
        "W",
        "set",
        "comparing",
        "Unpaired rows have far more of one label: desirable / undesirable is outside 1/4 to 4.",
        "Give the rarer label a higher weight, so that the weighted ratio is near one (KTO, arXiv "
        "2402.01306).",
        "9,000 rows with label true, 300 with label false",
    ),
    Check(
        "PD606",
        "licence_unclear",
        "W",
        "set",
        "comparing",
        "Some rows name a licence or a source and others do not, or the rows name several "
        "licences.",
        "Fill the column, or build each licence separately.",
        "8,000 rows under mit, 200 under cc-by-nc-4.0, 12 without",
    ),
    Check(
        "PD607",
        "secret_or_personal",
        "I",
        "row",
        "checking",
        "A text contains what looks like a secret (a key, token or password) or personal data (an "
        "e-mail address, phone, card, account, IP or social security number). Best effort: some "
        "are missed. The report shows only the class, the place and the last four characters.",
        "Revoke a real secret first; then replace it in the source.",
        "sk_live_… ending in 9f3c",
    ),
    Check(
        "PD608",
        "trigger_text",
        "off",
        "set",
        "comparing",
        "A word that is rare overall is in many chosen sides and almost no rejected one, or in "
        "many prompts and almost no answer, in a new context each time and over unrelated "
        "prompts. A planted trigger looks like this. A triage, not a proof; off unless a config "
        "sets it to I or W, since it takes as long as all other checks together.",
        "Read the rows that contain it, and check where they came from.",
        '"violet harbor protocol" in 40 chosen sides of unrelated prompts, and in no other text',
    ),
)
