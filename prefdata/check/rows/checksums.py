"""Checksums of card numbers and IBANs, and the entropy of a string."""

import math
from collections import Counter


def luhn(digits: str) -> bool:
    """Check that the last digit of a card number is its check digit (ISO/IEC 7812-1).

    >>> luhn("4111111111111111"), luhn("4111111111111112")
    (True, False)
    """
    total = 0
    for at, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + at % 2)
        total += value - 9 * (value > 9)
    return total % 10 == 0


def mod97(iban: str) -> bool:
    """Check that an IBAN without spaces is 1 modulo 97 (ISO 13616, ISO 7064).

    >>> mod97("GB82WEST12345698765432"), mod97("GB82WEST12345698765433")
    (True, False)
    """
    turned = iban[4:] + iban[:4]
    return int("".join(str(int(char, 36)) for char in turned)) % 97 == 1


def entropy(text: str) -> float:
    """Return the bits per character, by the counts of characters in the text (Shannon).

    >>> entropy("aaaa"), entropy("abcd")
    (0.0, 2.0)
    """
    total = len(text)
    return -sum(n / total * math.log2(n / total) for n in Counter(text).values()) + 0.0
