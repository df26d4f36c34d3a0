"""Patterns of secrets and personal data, one line per class.

The forms are those that the issuers document and that gitleaks, trufflehog and GitHub's secret
scanning search for. Every match contains one of the `keywords`: without one, the pattern is not
tried. A match counts only if its `proof` returns true.
"""

import ipaddress
import math
import re
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple


class Pattern(NamedTuple):
    """One class of secrets or personal data."""

    name: str
    regex: re.Pattern[str]
    """The secret is its first group, or the whole match; it is never shown."""
    keywords: tuple[str, ...]
    """Empty: the pattern is tried on every text with a digit."""
    proof: Callable[[str], bool]


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


def _is_random(secret: str) -> bool:
    """Check for at least 3 bits per character, and for no placeholder word of manuals."""
    lowered = secret.lower()
    return entropy(secret) >= 3.0 and not any(
        word in lowered for word in ("example", "xxxx", "your", "placeholder", "12345678", "abcdef")
    )


def _is_password(secret: str) -> bool:
    """Check for letters and digits: plain words, variable names and templates are not passwords."""
    has_both = any(map(str.isdigit, secret)) and any(map(str.isalpha, secret))
    return has_both and secret[0] not in "<{$[(%" and _is_random(secret)


def _any(secret: str) -> bool:
    return bool(secret)


def _is_card(text: str) -> bool:
    digits = re.sub(r"\D", "", text)
    return len(set(digits)) > 2 and luhn(digits)


def _is_iban(text: str) -> bool:
    return 15 <= len(iban := text.replace(" ", "")) <= 34 and mod97(iban)


def _is_ip(text: str) -> bool:
    """Check for a public IPv4 address; four single digits are a version number."""
    try:
        return ipaddress.IPv4Address(text).is_global and max(map(int, text.split("."))) > 9
    except ValueError:
        return False


def _is_ssn(text: str) -> bool:
    area, group, serial = text.split("-")
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def _is_phone(text: str) -> bool:
    return 9 <= len(re.sub(r"\D", "", text)) <= 13


def _pattern(
    name: str, regex: str, keywords: str = "", proof: Callable[[str], bool] = _is_random
) -> Pattern:
    return Pattern(name, re.compile(regex), tuple(keywords.split()), proof)


SECRETS = (
    _pattern(
        "private_key",
        r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----",
        "PRIVATE KEY",
        proof=_any,
    ),
    _pattern("aws_access_key", r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b", "AKIA ASIA ABIA ACCA"),
    _pattern(
        "aws_secret_key",
        r"(?i:aws)\w{0,20}(?i:secret|key)\w{0,20}[\"']?\s{0,3}[:=]+\s{0,3}[\"']?([A-Za-z0-9/+]{40})\b",
        "aws AWS",
    ),
    _pattern("github_token", r"\bgh[pousr]_[A-Za-z0-9]{36,76}\b", "ghp_ gho_ ghu_ ghs_ ghr_"),
    _pattern("github_fine_grained", r"\bgithub_pat_\w{60,90}\b", "github_pat_"),
    _pattern("gitlab_token", r"\bglpat-[\w-]{20,60}", "glpat-"),
    _pattern("slack_token", r"\bxox[abeoprs]-[A-Za-z0-9-]{10,150}", "xox"),
    _pattern(
        "slack_webhook",
        r"hooks\.slack\.com/services/(\w+/\w+/\w{20,30})",
        "hooks.slack.com",
        proof=_any,
    ),
    _pattern("stripe_key", r"\b[sr]k_(?:live|test)_[A-Za-z0-9]{16,110}", "k_live_ k_test_"),
    _pattern("google_api_key", r"\bAIza[\w-]{35}", "AIza"),
    _pattern("google_oauth", r"\bya29\.[\w-]{20,}|\bGOCSPX-[\w-]{28}", "ya29. GOCSPX-"),
    _pattern("anthropic_key", r"\bsk-ant-[\w-]{24,}", "sk-ant-"),
    _pattern(
        "openai_key",
        r"\bsk-(?:proj-|svcacct-|admin-)?(?!ant-|or-)[A-Za-z0-9][\w-]{31,}",
        "sk-",
    ),
    _pattern("openrouter_key", r"\bsk-or-(?:v1-)?[a-f0-9]{40,}", "sk-or-"),
    _pattern("huggingface_token", r"\bhf_[A-Za-z]{30,40}\b", "hf_"),
    _pattern("groq_key", r"\bgsk_[A-Za-z0-9]{40,60}\b", "gsk_"),
    _pattern("replicate_token", r"\br8_[A-Za-z0-9]{37,40}\b", "r8_"),
    _pattern("npm_token", r"\bnpm_[A-Za-z0-9]{36}\b", "npm_"),
    _pattern("pypi_token", r"\bpypi-AgEI[\w-]{50,}", "pypi-AgEI"),
    _pattern("docker_token", r"\bdckr_pat_[\w-]{27}", "dckr_pat_"),
    _pattern("sendgrid_key", r"\bSG\.[\w-]{16,32}\.[\w-]{16,64}", "SG."),
    _pattern("mailgun_key", r"\bkey-[0-9a-f]{32}\b", "key-"),
    _pattern("mailchimp_key", r"\b[0-9a-f]{32}-us[0-9]{1,2}\b", "-us"),
    _pattern("twilio_key", r"\b(?:SK|AC)[0-9a-f]{32}\b", "SK AC"),
    _pattern("digitalocean_token", r"\bdo[opr]_v1_[a-f0-9]{64}\b", "_v1_"),
    _pattern(
        "shopify_token",
        r"\bshp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}\b",
        "shpat_ shpca_ shppa_ shpss_",
        proof=_any,
    ),
    _pattern("square_token", r"\bsq0(?:atp|csp)-[\w-]{22,43}", "sq0"),
    _pattern("databricks_token", r"\bdapi[a-f0-9]{32}\b", "dapi"),
    _pattern("vault_token", r"\bhv[sb]\.[\w-]{24,}", "hvs. hvb."),
    _pattern("azure_key", r"AccountKey=([A-Za-z0-9+/]{86}==)", "AccountKey="),
    _pattern("telegram_token", r"(?<![\d:])[0-9]{8,10}:A[A-Za-z0-9_-]{34}\b", ":A"),
    _pattern(
        "discord_webhook",
        r"discord(?:app)?\.com/api/webhooks/([0-9]{17,20}/[\w-]{60,70})",
        "/api/webhooks/",
        proof=_any,
    ),
    _pattern("json_web_token", r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}", "eyJ"),
    _pattern(
        "bearer_token",
        r"(?i:authorization)[\"']?\s{0,3}:\s{0,3}[\"']?(?i:bearer|basic|token)\s+([\w.+/=-]{16,})",
        "uthorization",
    ),
    _pattern(
        "password_in_url",
        r"\b[a-z][a-z0-9+.-]{1,15}://[^\s/:@\"'<>]{1,60}:([^\s/@\"'<>]{4,80})@[\w.-]+",
        "://",
        proof=_is_password,
    ),
    _pattern(
        "assigned_secret",
        r"(?i:pass(?:word|wd)?|pwd|secret|api[_-]?key|access[_-]?key|auth[_-]?token)[\"']?"
        r"\s{0,3}(?:=|:|:=|=>)\s{0,3}[\"']?([^\s\"',;<>(){}]{10,100})",
        "pass Pass PASS pwd PWD ecret ECRET key Key KEY token Token TOKEN",
        proof=_is_password,
    ),
)
PERSONAL = (
    _pattern(
        "email_address",
        r"(?<![\w.+%/:-])[A-Za-z0-9][\w.+%-]{0,63}@(?!example\.)(?:[A-Za-z0-9-]{1,63}\.){1,4}[A-Za-z]{2,24}\b",
        "@",
        proof=_any,
    ),
    _pattern(
        "card_number",
        r"(?<![\d.,+-])(?:[2-6]\d{15}|[2-6]\d{3}(?:[ -]\d{4}){3}|3[47]\d{13}"
        r"|3[47]\d{2}[ -]\d{6}[ -]\d{5})(?![\d.,-]*\d)",
        proof=_is_card,
    ),
    _pattern(
        "iban",
        r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b",
        proof=_is_iban,
    ),
    _pattern("ip_address", r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.]*\d)", proof=_is_ip),
    _pattern("social_security_number", r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-]*\d)", proof=_is_ssn),
    _pattern(
        "phone_number",
        r"(?<![\w.,/=-])(?:\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{2,4}(?:[ .-]?\d{2,4}){1,4}"
        r"|\(\d{3}\) ?\d{3}[ .-]\d{4}|\d{3}[.-]\d{3}[.-]\d{4})(?![\w-]*\d)",
        proof=_is_phone,
    ),
)
