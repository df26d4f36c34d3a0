"""PD1..: rows and columns that cannot be read, and text that is damaged."""

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
        "Look at the row's bytes at the file, line and offset given, and fix the program that "
        "wrote them.",
        '{"chosen": "a", "chosen": "b"}',
    ),
    Check(
        "PD102",
        "unknown_layout",
        "E",
        "set",
        "reading",
        "No layout, or more than one, fits the columns of the file; or its layout has no prompt "
        "column and the prompt is uncertain: another column with text is left, or what both sides "
        "share ends in the middle of a line.",
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
        "A field has a type that differs from the layout's, so it may mean something different "
        "than in other rows; such rows carry the code R210.",
        "Write the field in one type throughout the file.",
        '{"prompt": "q", "chosen": 5, "rejected": "b"}',
    ),
    Check(
        "PD105",
        "schema_drift",
        "W",
        "set",
        "comparing",
        "Some rows have a column that other rows of the same file do not have and that the layout "
        "does not name. Other readers drop it, fill it with nulls or fail (datasets #7222, #7092).",
        "Write the same columns in every row, or list the column under the layout's `optional`.",
        "rows 1 to 3,000 without `score`, and row 3,001 with it",
    ),
    Check(
        "PD106",
        "damaged_text",
        "W",
        "row",
        "checking",
        "A turn's text contains replacement characters (U+FFFD), control characters, a byte order "
        "mark, or UTF-8 that was read as Latin-1.",
        "Read the source again in its own encoding; if it is lost, leave the row out.",
        "Itâ€™s a cafÃ©",
    ),
    Check(
        "PD107",
        "broken_marker",
        "W",
        "row",
        "checking",
        "A turn's text contains what looks like a broken marker of an HH transcript: a dangling "
        "Human or Assistant, `Hum:`, `Assistants`. Two turns may have become one here.",
        "Look at the row: if a turn begins there, correct its marker.",
        "It depends on the question you just read.\\n\\nHuman",
    ),
    Check(
        "PD110",
        "column_not_read",
        "W",
        "set",
        "comparing",
        "The rows have a column whose name means something for training (a system text, tools, "
        "scores, a margin, a weight, a split, earlier turns, a prompt, a label), but the layout "
        "does not read it, so it does not affect training.",
        "Name it in a layout of your own (docs/layouts.md). If it is not meant to be read, list "
        "it under the layout's `optional`, or drop it.",
        '{"prompt": "q", "chosen": "a", "rejected": "b", "history": [["q0", "a0"]]}',
    ),
    Check(
        "PD112",
        "unknown_column",
        "E",
        "set",
        "reading",
        "The command or the config names a column as prompt, chosen or rejected that no row of "
        "the file has, or that fits no field of the file's layout.",
        "Name one of the file's columns, which the message lists.",
        "--prompt-column taks, if the column's name is task",
    ),
)
