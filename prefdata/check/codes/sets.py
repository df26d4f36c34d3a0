"""PD4.. and PD5..: duplicates and conflicts within a set, and leaks across its splits."""

from prefdata.check.code import Check

SETS = (
    Check(
        "PD401",
        "exact_duplicate",
        "W",
        "set",
        "comparing",
        "The same pair, character by character, occurs earlier in the inputs.",
        "No action needed: the first one is kept, and duplicates.parquet names it.",
        "two equal rows",
    ),
    Check(
        "PD402",
        "near_duplicate",
        "W",
        "set",
        "comparing",
        "The row is nearly the same as another one: the Jaccard similarity of their word n-grams "
        "is at least the threshold.",
        "Keep one row of each cluster; at the very least, keep a cluster in one split.",
        '"How do I boil an egg?" and "how do i boil an egg"',
    ),
    Check(
        "PD403",
        "contradictory_pair",
        "E",
        "set",
        "comparing",
        "Another row prefers the same two completions the other way round.",
        "Decide which one is right; together they cancel each other, so all are refused.",
        "one row prefers a to b, another b to a",
    ),
    Check(
        "PD404",
        "preference_cycle",
        "W",
        "set",
        "comparing",
        "The pairs of one prompt form a cycle of three or more, so no order of the completions "
        "agrees with all of them.",
        "No action needed, since raters disagree; to break the cycle, leave out the pair with the "
        "smallest margin.",
        "a over b, b over c, c over a",
    ),
    Check(
        "PD405",
        "frequent_prompt",
        "W",
        "set",
        "comparing",
        "One prompt has more than `checks.max_pairs_per_prompt` pairs, so it weighs more in "
        "training.",
        "Pair fewer of its completions, give its rows a weight, or train with batch_unit: groups.",
        "500 pairs of `Hello`",
    ),
    Check(
        "PD406",
        "chosen_and_rejected",
        "I",
        "set",
        "comparing",
        "A completion is chosen in one pair of a prompt and rejected in another, as the middle "
        "ones of a ranking are.",
        "No action needed if the pairs come from rankings.",
        "a over b, b over c",
    ),
    Check(
        "PD407",
        "boilerplate",
        "W",
        "set",
        "comparing",
        "One completion answers more than `checks.max_prompts_per_completion` different prompts.",
        "Leave most of them out: they teach a phrase, not a preference.",
        '"I am a language model and have no opinion." under 4,000 prompts',
    ),
    Check(
        "PD409",
        "excluded",
        "I",
        "set",
        "comparing",
        "The config excludes the pair by its id.",
        "No action needed: the pair counts as filtered and is written to `rejected/`.",
        "exclude: [scores/suspects.jsonl]",
    ),
    Check(
        "PD501",
        "prompt_in_two_splits",
        "E",
        "set",
        "comparing",
        "The same prompt is in two splits of the inputs, so evaluation would repeat what was "
        "trained on.",
        "No action needed in a build: `leaks: drop_from_train` drops it from the split of lower "
        "precedence; train has the lowest. To split again by prompt: --resplit.",
        "`What is 2 + 2?` in train and in test",
    ),
    Check(
        "PD502",
        "near_prompt_in_two_splits",
        "W",
        "set",
        "comparing",
        "Nearly the same prompt is in two splits of the inputs.",
        "No action needed in a build: it is dropped as for PD501. If prompts share a template on "
        "purpose, raise near_duplicates.threshold, or keep them with `severity: {PD502: I}`.",
        "`What is 2 + 2?` in train, `what is 2+2` in test",
    ),
    Check(
        "PD503",
        "evaluation_overlap",
        "E",
        "row",
        "checking",
        "A row contains text of a file that `evaluations` names: a run of 13 words, or 70 % of an "
        "item's 8-word runs. An item of 4 to 7 words counts only as a whole turn.",
        "Leave the row out, or do not evaluate on that file.",
        "a TruthfulQA question among the prompts",
    ),
    Check(
        "PD504",
        "thread_in_two_splits",
        "W",
        "set",
        "comparing",
        "Rows of one conversation, user or post are in two splits, by an id in the rows.",
        "Split by that id.",
        'conversation_id "c-17" in train and in test',
    ),
    Check(
        "PD505",
        "pair_in_two_splits",
        "E",
        "set",
        "comparing",
        "The same pair, character by character, is in two splits of the inputs.",
        "No action needed in a build: `leaks: drop_from_train` drops it from the split of lower "
        "precedence; train has the lowest.",
        "a row of train.jsonl that is also in test.jsonl",
    ),
)
