"""Seeded damage to bytes, as by a disk, a cut download, an editor or an attacker."""

from random import Random

HOSTILE = (
    b'"', b"'", b"\\", b"\n", b"\r", b"\r\n", b"\n\n", b"\0", b"\\u0000", b"\\ud800", b"\xff",
    b"\x80",
    b"\xef\xbb\xbf", b"\xff\xfe", b"\xe2\x80\xae", b"\x1b[31m", b"\x1b]0;x\x07", b"\xc2\x9b",
    b"{", b"}",
    b"[", b"]", b",", b":", b"\t", b";", b"null", b"NaN", b"-Infinity", b"1e999", b"9" * 400,
    b"[" * 200,
    b'{"a":' * 70, b"true", b'"prompt"', b'"chosen"', b'"rejected"', b'"messages"', b"<|im_end|>",
    b"\n\nHuman: ", b"\n\nAssistant:", b"PAR1", b"ARROW1", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd",
    b"A" * 5000,
    b"2024-02-30", b"0b_", b"!!int x", b"&a [*a]", b"<<: ", b"---\n", b"- ", b"? ", b"../", b"/",
    b"~",
    b"step-00000018.tar.gz", b".inf", b"010", b"1:30", b"no", b"\xf0\x9f\x98\x80",
)  # fmt: skip


def damaged(data: bytes, random: Random) -> bytes:
    """Return the bytes after one to four changes."""
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        data = random.choice(CHANGES)(data, random)
    return data


def _flip(data: bytes, random: Random) -> bytes:
    if not data:
        return data
    at = random.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :]


def _insert(data: bytes, random: Random) -> bytes:
    at = random.randrange(len(data) + 1)
    return data[:at] + random.choice(HOSTILE) + data[at:]


def _overwrite(data: bytes, random: Random) -> bytes:
    at, piece = random.randrange(len(data) + 1), random.choice(HOSTILE)
    return data[:at] + piece + data[at + len(piece) :]


def _noise(data: bytes, random: Random) -> bytes:
    at = random.randrange(len(data) + 1)
    return data[:at] + random.randbytes(random.randint(1, 16)) + data[at:]


def _cut(data: bytes, random: Random) -> bytes:
    return data[: random.randrange(len(data) + 1)]


def _remove(data: bytes, random: Random) -> bytes:
    start, end = _range(data, random)
    return data[:start] + data[end:]


def _repeat(data: bytes, random: Random) -> bytes:
    start, end = _range(data, random)
    return data[:end] + data[start:end] + data[end:]


def _move(data: bytes, random: Random) -> bytes:
    start, end = _range(data, random)
    rest = data[:start] + data[end:]
    at = random.randrange(len(rest) + 1)
    return rest[:at] + data[start:end] + rest[at:]


def _line_ends(data: bytes, random: Random) -> bytes:
    return data.replace(b"\n", random.choice((b"\r\n", b"\r", b"\n\n", b" \n", b"")))


def _lines(data: bytes, random: Random) -> bytes:
    lines = data.split(b"\n")
    random.shuffle(lines)
    return b"\n".join(lines[: random.randint(1, len(lines))])


def _swap_words(data: bytes, random: Random) -> bytes:
    words = (b"prompt", b"chosen", b"rejected", b"content", b"role", b"user", b"assistant")
    one, other = random.sample(words, 2)
    return data.replace(one, other, random.choice((1, 1, -1)))


CHANGES = (
    _flip, _flip, _insert, _insert, _overwrite, _noise, _cut, _remove, _repeat, _move, _line_ends,
    _lines, _swap_words,
)  # fmt: skip


def _range(data: bytes, random: Random) -> tuple[int, int]:
    start = random.randrange(len(data) + 1)
    return start, min(len(data), start + random.choice((1, 2, 8, 64, 512)))
