"""PD3..: pairs without a preference, or with one that may be wrong."""

from prefdata.check.code import Check

PAIRS = (
    Check(
        "PD301",
        "same_completion",
        "E",
        "row",
        "checking",
        "Chosen and rejected are equal except for spaces and Unicode forms.",
        "Remove the row: it has no preference.",
        '{"prompt": "q", "chosen": "a b", "rejected": "a  b"}',
    ),
    Check(
        "PD302",
        "near_completion",
        "W",
        "row",
        "checking",
        "Chosen and rejected are nearly the same text: 2 × common characters in order / all "
        "characters is at least `checks.min_similarity` (0.95).",
        "Check that the difference is what you want to teach; DPO lowers both log-probs if the "
        "sides are this close (arXiv 2402.13228).",
        '"The answer is 12, as shown above." and "The answer is 13, as shown above."',
    ),
    Check(
        "PD303",
        "tie",
        "E",
        "row",
        "reading",
        "The two completions have the same rank, so neither is preferred.",
        "No action needed; another pairing strategy may find pairs in the same row.",
        '{"completions": [{"text": "a", "rank": 1}, {"text": "b", "rank": 1}]}',
    ),
    Check(
        "PD304",
        "score_against_label",
        "E",
        "row",
        "checking",
        "The rejected side has the higher score, or the margin is negative: scores and label "
        "contradict each other.",
        "Find out which is right. If a low score is best, declare that in the layout, or leave "
        "the scores out.",
        '{"score_chosen": 3, "score_rejected": 8}',
    ),
    Check(
        "PD305",
        "score_out_of_range",
        "E",
        "row",
        "checking",
        "A score is outside the range that the config declares in `checks.score_range`.",
        "Fix the score, or widen the range.",
        "checks: {score_range: [1, 10]} and a score of 55",
    ),
    Check(
        "PD306",
        "score_against_aspects",
        "W",
        "row",
        "checking",
        "The overall score is far above the mean of the row's aspects (more than 2 × mean + 1; "
        "aspects go from 1 to 5, scores from 1 to 10): a 10 may be a misread 1, as in 2,628 "
        "completions of UltraFeedback.",
        "Order such rows by the mean of their aspects.",
        "an overall score of 10 and aspects 1, 2, 1 and 1",
    ),
    Check(
        "PD307",
        "rank_against_label",
        "E",
        "row",
        "checking",
        "The chosen side ranks behind the rejected one (1 is best). A layout must say which end "
        "of a rank is best; if its ends are swapped, every pair is reversed.",
        "Set `rank: {best: low}` or `high` in the layout.",
        '{"chosen_rank": 4, "rejected_rank": 1}',
    ),
    Check(
        "PD308",
        "small_margin",
        "I",
        "row",
        "checking",
        "The score of chosen is less than `checks.min_margin` above that of rejected.",
        "Raise the code to E to leave such pairs out: raters often disagree on them.",
        "checks: {min_margin: 1} and scores of 7.5 and 7",
    ),
    Check(
        "PD309",
        "chosen_refuses",
        "W",
        "row",
        "checking",
        "The chosen side begins as a refusal and the rejected one does not. (The profile counts "
        "both directions.)",
        "No action needed in sets about harmlessness; in others, such pairs teach the model to "
        "refuse.",
        "\"I'm sorry, but I can't help with that.\" preferred to an answer",
    ),
    Check(
        "PD310",
        "extreme_length",
        "W",
        "row",
        "checking",
        "A text is longer than `checks.max_chars`, or the longer side has over 1,000 characters "
        "and is more than `checks.max_length_ratio` times as long as the other.",
        "Check that the long text is an answer at all; the max_length of a build drops it anyway.",
        "chosen has 9 characters, rejected 4,000",
    ),
    Check(
        "PD311",
        "cut_completion",
        "I",
        "row",
        "checking",
        "A completion of more than 200 characters looks cut off: it ends with a letter, a digit "
        "or a comma, or inside a code block.",
        "Raise the limit on new tokens of the model that generated it; cut ends teach a model not "
        "to stop.",
        "... and the third reason is that the",
    ),
    Check(
        "PD312",
        "other_language",
        "I",
        "row",
        "checking",
        "A completion is in another script or language than the prompt's last turn or the other "
        "completion (best effort: scripts, and stop words of nine languages).",
        "Check that the answer is meant to be in another language.",
        "a question in French and an answer in English",
    ),
    Check(
        "PD313",
        "degenerate_repetition",
        "W",
        "row",
        "checking",
        "More than half of a completion repeats the same few words (repeated 10-grams, as in the "
        "Gopher rules, arXiv 2112.11446, table A1).",
        "Leave the row out if the chosen side repeats; a rejected side that does is less harmful.",
        "I do not know. I do not know. I do not know. I do not know. ...",
    ),
)
