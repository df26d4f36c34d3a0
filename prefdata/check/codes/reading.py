"""R213 and R220..: rows with the right columns that still give no pair."""

from prefdata.check.code import Check

READING = (
    Check(
        "R213",
        "unpaired_row",
        "E",
        "row",
        "reading",
        "The layout makes a pair from several rows, and this row is in none: no other row of its "
        "prompt can be compared with it, or the pairing strategy skipped it.",
        "No action needed if the prompt has only one label; otherwise try another pairing "
        "strategy.",
        '{"prompt": "q", "completion": "a", "label": true}, the only row of its prompt',
    ),
    Check(
        "R220",
        "repeated_prompt",
        "E",
        "row",
        "reading",
        "Both answers begin with the prompt, or contain it before they differ, so it would be "
        "trained twice. If 99 % of the first 1,024 rows are like this, the prompt is cut off; "
        "here they are not.",
        "Cut it off in the file, or set `repeated: cut` (or `keep`) in a layout of your own.",
        '{"prompt": "How many legs has a spider?", "chosen": "How many legs has a spider? Eight.", '
        '"rejected": "How many legs has a spider? Six."}',
    ),
    Check(
        "R221",
        "prompt_not_repeated",
        "E",
        "row",
        "reading",
        "In nearly all rows of the file the answers begin with the prompt, which is cut off; an "
        "answer of this row does not begin with it.",
        "Check whether the prompt belongs to another row, and write all rows in one way.",
        "one row of a hundred, whose answers do not repeat the prompt",
    ),
    Check(
        "R222",
        "two_system_texts",
        "E",
        "row",
        "reading",
        "The column with the system text differs from the system turn in the dialogue.",
        "Keep one of the two: drop the column, or the turn.",
        '{"system": "Be brief.", "prompt": [{"role": "system", "content": "Be kind."}]}',
    ),
    Check(
        "R223",
        "holds_media",
        "E",
        "row",
        "reading",
        "A column of images, audio or video is not empty. Token shards hold only text, so the "
        "answers would be trained without what they are about.",
        "Leave such rows out. If the text makes sense without the media, list the column under "
        "`optional` in a layout of your own.",
        '{"prompt": "What is this?", "images": ["cat.png"], "chosen": "A cat.", "rejected": "A '
        'dog."}',
    ),
    Check(
        "R224",
        "messages_as_text",
        "E",
        "row",
        "reading",
        "A cell contains messages written as JSON or as a Python literal, but it is read as text "
        "because of its layout or the other cells of its column. It would be trained as one long "
        "text.",
        "Write all cells in one way, or leave out --layout so that the messages are parsed. A "
        "column of kind `any` in a layout of your own keeps such text as it is.",
        """{"prompt": "[{'role': 'user', 'content': 'Hi'}]", "chosen": "a", "rejected": "b"}""",
    ),
    Check(
        "R225",
        "no_shared_beginning",
        "E",
        "row",
        "reading",
        "The file has no prompt column, and chosen and rejected of this row share no beginning "
        "that ends at a line, a turn or a marker, so no part of them is certain to be the prompt.",
        "Add a prompt column, or force --layout trl-std-implicit, which takes any common words as "
        "the prompt.",
        '{"chosen": "The sky is blue.", "rejected": "The sky is black."}',
    ),
    Check(
        "R226",
        "another_dialogue",
        "E",
        "row",
        "reading",
        "The prompt ends in a user turn, but a side begins with another user turn or a system "
        "text: the side is a whole dialogue that does not belong to this prompt.",
        "Cut the side to its answer, or name a layout whose sides are whole dialogues.",
        '{"prompt": [u1], "chosen": [u2, a], "rejected": [u2, b]}',
    ),
    Check(
        "R227",
        "two_tool_lists",
        "E",
        "row",
        "reading",
        "Chosen and rejected have different tools. Tools are part of the prompt, and a pair has "
        "one prompt.",
        "Write the same tools on both sides.",
        '{"chosen": {"messages": […], "tools": [t1]}, "rejected": {"messages": […], "tools": []}}',
    ),
)
