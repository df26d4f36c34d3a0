"""Bytes to lines, split on 0x0A alone, in bounded memory.

U+2028, U+0085 and a lone CR are text or a parser's matter, never a line's end. A line longer than
the limit is given as its first bytes and the rest is passed over unread.
"""

from collections.abc import Iterator

BOM = b"\xef\xbb\xbf"
RAW_BYTES_KEPT = 4096

WHOLE, LONG, LAST = 0, 1, 2  # LAST: whole, but no 0x0A ends it

# (number from 1, offset of the first byte, bytes without the 0x0A, one of the three above)
Line = tuple[int, int, bytes, int]


def split_lines(
    blocks: Iterator[bytes], max_bytes: int, number: int = 1, offset: int = 0
) -> Iterator[Line]:
    """Every line; the last one may lack its 0x0A, and no line follows a final 0x0A.

    `number` and `offset` are those of the first one.
    """
    carry, skipped = b"", 0  # skipped: bytes of an over-long line that were passed over
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
