"""Bytes to lines, split only on 0x0A, in bounded memory.

U+2028, U+0085 and a lone CR never end a line; they are text, or the parser handles them. Of a line
over the limit only the first bytes are kept; the rest is skipped unread.
"""

from collections.abc import Iterator

BOM = b"\xef\xbb\xbf"
RAW_BYTES_KEPT = 4096

WHOLE, LONG, LAST = 0, 1, 2  # LAST: whole, but without a final 0x0A

# (number from 1, offset of the first byte, bytes without the 0x0A, one of the three above)
Line = tuple[int, int, bytes, int]


def split_lines(
    blocks: Iterator[bytes], max_bytes: int, number: int = 1, offset: int = 0
) -> Iterator[Line]:
    """Yield every line; the last may lack its 0x0A, and no line follows a final 0x0A.

    `number` and `offset` are those of the first line.
    """
    carry, skipped = b"", 0  # skipped: number of bytes left out of an over-long line
    for block in blocks:
        parts = (carry + block).split(b"\n")
        carry = parts.pop()
        for part in parts:
            if skipped or len(part) > max_bytes:
                yield number, offset, part[:RAW_BYTES_KEPT], LONG
            else:
                yield number, offset, part, WHOLE
            number += 1
            offset += len(part) + skipped + 1
            skipped = 0
        if skipped or len(carry) > max_bytes:
            skipped += len(carry) - RAW_BYTES_KEPT
            carry = carry[:RAW_BYTES_KEPT]
    if carry:
        yield number, offset, carry, LONG if skipped else LAST
