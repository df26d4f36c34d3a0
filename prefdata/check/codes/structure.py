"""PD1..: whether a row can be read, and whether its text came through undamaged."""

from prefdata.check.code import Check

STRUCTURE = (
    Check(
        "PD101",
        "unparseable_row",
        "E",
        "row",
        "reading",
        "The row cannot be parsed. Such rows carry the exact fault as a code of their own: R201 "
        "not JSON, R202 not UTF-8, R203 lone surrogate, R204 NUL, R205 not a finite number, R206 "
        "a number too long, R207 duplicate key, R208 too deep, R209 not an object, R212 too long, "
        "R214 the CSV header again, R215 spaces before quotes in CSV, R216 too many values.",
        "Look at the row's bytes at the file, line and offset given, and mend what wrote them.",
        '{"chosen": "a", "chosen": "b"}',
    ),
    Check(
        "PD102",
        "unknown_layout",
        "E",
        "set",
        "reading",
        "No layout, or more than one, has the columns of the file; or its layout has no prompt "
        "column and the prompt is not sure: a column with text is left, or what both sides "
        "share ends amid a line.",
        "Name the prompt's column with --prompt-column, or the layout with --layout; or "
        "describe it in a YAML file (docs/layouts.md).",
        '{"foo": "q", "bar": "a"}',
    ),
    Check(
        "PD103",
        "missing_field",
        "E",
        "row",
        "reading",
        "A field that the layout needs is missing or null; such rows carry the code R211.",
        "Fill the field, or choose another layout.",
        '{"prompt": "q", "chosen": "a", "rejected": null}',
    ),
    Check(
        "PD104",
        "wrong_type",
        "E",
        "row",
        "reading",
        "A field has another type than the layout's, so another row may mean something else by "
        "it; such rows carry the code R210.",
        "Write the field in one type throughout the file.",
        '{"prompt": "q", "chosen": 5, "rejected": "b"}',
    ),
    Check(
        "PD105",
        "schema_drift",
        "W",
        "set",
        "comparing",
        "Some rows have a column that others of the same file do not, and that the layout does "
        "not name; other readers drop it, fill it with nulls or fail (datasets #7222, #7092).",
        "Write the same columns in every row, or list the column under the layout's `optional`.",
        "rows 1 to 3,000 without `score`, and row 3,001 with it",
    ),
    Check(
        "PD106",
        "damaged_text",
        "W",
        "row",
        "checking",
        "A turn's text holds replacement characters (U+FFFD), control characters, a byte order "
        "mark, or UTF-8 that was read as Latin-1.",
        "Read the source again in its own encoding; where it is lost, leave the row out.",
        "Itâ€™s a cafÃ©",
    ),
    Check(
        "PD107",
        "broken_marker",
        "W",
        "row",
        "checking",
        "A turn's text holds what was meant to be, or looks like, the marker of an HH transcript: "
        "a dangling Human or Assistant, `Hum:`, `Assistants`. Two turns may be one here.",
        "Look at the row: where a turn begins there, give it its marker.",
        "It depends on the question you just read.\\n\\nHuman",
    ),
    Check(
        "PD110",
        "column_not_read",
        "W",
        "set",
        "comparing",
        "A column whose name means something for training (a system text, tools, scores, a margin, "
        "a weight, a split, earlier turns, a prompt, a label) is in the rows, and the layout does "
        "not read it: it changes nothing of what is trained.",
        "Name it in a layout of your own (docs/layouts.md), or under the layout's `optional` where "
        "it is not meant to be read; drop the column where nobody needs it.",
        '{"prompt": "q", "chosen": "a", "rejected": "b", "history": [["q0", "a0"]]}',
    ),
    Check(
        "PD112",
        "unknown_column",
        "E",
        "set",
        "reading",
        "A column that the command or the config names as prompt, chosen or rejected is in no "
        "row of the file, or its layout has nothing that the column could stand for.",
        "Name one of the file's columns, which the message lists.",
        "--prompt-column taks, where the column's name is task",
    ),
)
