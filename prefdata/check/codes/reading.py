"""R213 and R220..: rows that are objects with the right columns, and still give no pair."""

from prefdata.check.code import Check

READING = (
    Check(
        "R213",
        "unpaired_row",
        "E",
        "row",
        "reading",
        "The row is one of several that make a pair, and part of none: no other row of its "
        "prompt can be compared with it, or the pairing strategy passed it by.",
        "Nothing to fix where the prompt has one label only; else try another pairing strategy.",
        '{"prompt": "q", "completion": "a", "label": true}, alone with its prompt',
    ),
    Check(
        "R220",
        "repeated_prompt",
        "E",
        "row",
        "reading",
        "Both answers begin with the prompt, or hold it before they differ, so it would be "
        "trained twice. Where 99 % of the first 1,024 rows are so, the prompt is cut off; here "
        "they are not.",
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
        "The answers of nearly all rows of the file begin with the prompt, which is cut off "
        "there; an answer of this row does not.",
        "Look whether the row's prompt is another one's, and write all rows in one way.",
        "one row of a hundred whose answers stand alone",
    ),
    Check(
        "R222",
        "two_system_texts",
        "E",
        "row",
        "reading",
        "The column with the system text says something else than the system turn in the dialogue.",
        "Keep one of both: drop the column, or the turn.",
        '{"system": "Be brief.", "prompt": [{"role": "system", "content": "Be kind."}]}',
    ),
    Check(
        "R223",
        "holds_media",
        "E",
        "row",
        "reading",
        "A column of images, audio or video is not empty. Token shards hold text alone, so the "
        "answers would be trained without what they are about.",
        "Leave such rows out; list the column under `optional` in a layout of your own where "
        "the text stands for itself.",
        '{"prompt": "What is this?", "images": ["cat.png"], "chosen": "A cat.", "rejected": "A '
        'dog."}',
    ),
    Check(
        "R224",
        "messages_as_text",
        "E",
        "row",
        "reading",
        "A cell holds messages written as JSON or as a Python literal, and the file's other "
        "cells of that column, or its layout, say that it is text. It would be trained as one "
        "long text.",
        "Write all cells in one way, or leave out --layout so that the messages are parsed; a "
        "column of kind `any` in a layout of your own takes such text as it is.",
        """{"prompt": "[{'role': 'user', 'content': 'Hi'}]", "chosen": "a", "rejected": "b"}""",
    ),
    Check(
        "R225",
        "no_shared_beginning",
        "E",
        "row",
        "reading",
        "The file has no prompt column, and chosen and rejected of this row share no beginning "
        "that ends at a line, a turn or a marker, so nothing of it is sure to be the prompt.",
        "Give the row a prompt column, or force --layout trl-std-implicit, where any common "
        "words are the prompt.",
        '{"chosen": "The sky is blue.", "rejected": "The sky is black."}',
    ),
    Check(
        "R226",
        "another_dialogue",
        "E",
        "row",
        "reading",
        "The prompt ends in a user's turn, and a side begins with another user turn or system "
        "text: it is a whole dialogue, and not of this prompt.",
        "Cut the side to its answer, or name a layout whose sides are whole dialogues.",
        '{"prompt": [u1], "chosen": [u2, a], "rejected": [u2, b]}',
    ),
    Check(
        "R227",
        "two_tool_lists",
        "E",
        "row",
        "reading",
        "Chosen and rejected name different tools. Tools are part of the prompt, of which a "
        "pair has one.",
        "Write the same tools on both sides.",
        '{"chosen": {"messages": […], "tools": [t1]}, "rejected": {"messages": […], "tools": []}}',
    ),
)
