"""Secrets and personal data: planted ones are found, clean text is not reported."""

import random
import string
from collections.abc import Callable

import polars as pl
import pytest

from prefdata.records.secret_patterns import PERSONAL, SECRETS
from prefdata.records.secrets import SecretMatch, describe, find_private, suspects

UPPER, LOWER, DIGITS = string.ascii_uppercase, string.ascii_lowercase, string.digits
ALNUM, HEX = UPPER + LOWER + DIGITS, DIGITS + "abcdef"
URLSAFE = ALNUM + "-_"
WORDS = (
    *("the", "river", "runs", "past", "an", "old", "mill", "and", "nobody", "counts", "how"),
    *("many", "people", "ask", "for", "help", "with", "their", "garden", "because", "every"),
    *("answer", "is", "long", "keys", "open", "doors", "secret", "of", "bread", "time", "while"),
    *("a", "token", "thanks", "costs", "nothing", "so", "pass", "salt"),
)

Draw = Callable[[random.Random], str]


def drawn(pattern: str) -> Draw:
    """Return a generator of `prefix{alphabet*n}suffix`; it draws new characters on each call."""

    def draw(rng: random.Random) -> str:
        text = pattern
        while "{" in text:
            head, _, rest = text.partition("{")
            name, _, tail = rest.partition("}")
            alphabet, _, count = name.partition("*")
            text = head + "".join(rng.choices(ALPHABETS[alphabet], k=int(count))) + tail
        return text

    return draw


ALPHABETS = {
    "A": ALNUM,
    "H": HEX,
    "U": URLSAFE,
    "L": LOWER + UPPER,
    "B": UPPER + "234567",
    "D": DIGITS,
}


def card(rng: random.Random) -> str:
    digits = "4" + "".join(rng.choices(DIGITS, k=14))
    doubled = [int(d) * (2 - n % 2) for n, d in enumerate(digits)]
    check = -sum(d - 9 * (d > 9) for d in doubled) % 10
    whole = f"{digits}{check}"
    return rng.choice([whole, " ".join(whole[n : n + 4] for n in range(0, 16, 4))])


def iban(rng: random.Random) -> str:
    bban = "".join(rng.choices(DIGITS, k=18))
    check = 98 - int(f"{bban}131400") % 97  # DE00
    return f"DE{check:02d}{bban}"


PLANTED: dict[str, Draw] = {
    "private_key": lambda rng: f"-----BEGIN {rng.choice(['RSA ', 'EC ', ''])}PRIVATE KEY-----",
    "aws_access_key": drawn("AKIA{B*16}"),
    "aws_secret_key": drawn("aws_secret_access_key = {A*40}"),
    "github_token": drawn("ghp_{A*36}"),
    "github_fine_grained": drawn("github_pat_{A*22}_{A*59}"),
    "gitlab_token": drawn("glpat-{U*20}"),
    "slack_token": drawn("xoxb-{D*12}-{D*12}-{A*24}"),
    "slack_webhook": drawn("https://hooks.slack.com/services/T{A*8}/B{A*8}/{A*24}"),
    "stripe_key": drawn("sk_live_{A*24}"),
    "google_api_key": drawn("AIza{U*35}"),
    "google_oauth": drawn("GOCSPX-{U*28}"),
    "anthropic_key": drawn("sk-ant-api03-{U*80}"),
    "openai_key": drawn("sk-proj-{A*48}"),
    "openrouter_key": drawn("sk-or-v1-{H*64}"),
    "huggingface_token": drawn("hf_{L*34}"),
    "groq_key": drawn("gsk_{A*52}"),
    "replicate_token": drawn("r8_{A*37}"),
    "npm_token": drawn("npm_{A*36}"),
    "pypi_token": drawn("pypi-AgEI{U*70}"),
    "docker_token": drawn("dckr_pat_{U*27}"),
    "sendgrid_key": drawn("SG.{U*22}.{U*43}"),
    "mailgun_key": drawn("key-{H*32}"),
    "mailchimp_key": drawn("{H*32}-us12"),
    "twilio_key": drawn("SK{H*32}"),
    "digitalocean_token": drawn("dop_v1_{H*64}"),
    "shopify_token": drawn("shpat_{H*32}"),
    "square_token": drawn("sq0atp-{U*22}"),
    "databricks_token": drawn("dapi{H*32}"),
    "vault_token": drawn("hvs.{U*24}"),
    "azure_key": drawn("AccountKey={A*86}=="),
    "telegram_token": drawn("{D*10}:AA{A*33}"),
    "discord_webhook": drawn("https://discord.com/api/webhooks/{D*18}/{A*68}"),
    "json_web_token": drawn("eyJ{A*20}.eyJ{A*40}.{U*43}"),
    "bearer_token": drawn("Authorization: Bearer {A*40}"),
    "password_in_url": drawn("postgres://admin:{A*13}7@db.corp.net/app"),
    "assigned_secret": drawn('password = "{A*15}4"'),
    "email_address": drawn("{L*7}.{L*6}@{L*6}.org"),
    "card_number": card,
    "iban": iban,
    "ip_address": lambda rng: (
        f"8{rng.randint(1, 9)}.{rng.randint(10, 99)}.7.{rng.randint(10, 200)}"
    ),
    "social_security_number": drawn("212-4{D*1}-1{D*3}"),
    "phone_number": drawn("+1 415-{D*3}-{D*4}"),
}
# Texts that resemble them.
HARMLESS: list[Draw] = [
    drawn("version 1.{D*1}.{D*2} of 2024-0{D*1}-1{D*1}"),
    drawn("commit {H*40}"),
    drawn("{H*8}-{H*4}-{H*4}-{H*4}-{H*12}"),
    drawn("order {D*9} for ${D*3}.50"),
    drawn("https://site.org/{A*12}?page={D*3}"),
    drawn("key: value, password: hunter, token = none"),
    drawn("127.0.0.1:80{D*2} and 192.168.1.{D*2}"),
    drawn("{D*3},{D*3},{D*3} people in 19{D*2}"),
    drawn("pi is 3.14159265358979{D*8}"),
    drawn("def key(self, password): return self.token[password]"),
    drawn("@{L*8} wrote #{D*6}"),
    drawn("api_key=YOUR_API_KEY and password=<password>"),
]


def sentence(rng: random.Random, inside: str = "") -> str:
    words = rng.choices(WORDS, k=rng.randint(8, 30))
    words.insert(rng.randint(0, len(words)), inside)
    return " ".join(filter(None, words)) + "."


def test_every_class_is_planted() -> None:
    assert [pattern.name for pattern in (*SECRETS, *PERSONAL)] == list(PLANTED)
    assert len(SECRETS) >= 25


def test_planted_secrets_are_found_and_clean_rows_are_not_reported() -> None:
    """500 in 100,000 rows: at least 95 % are found, at most one false hit in 10,000 rows."""
    rng = random.Random(0)
    kinds = [list(PLANTED)[n % len(PLANTED)] for n in range(500)]
    rows = [(kind, sentence(rng, PLANTED[kind](rng))) for kind in kinds]
    for number in range(99_500):
        odd = HARMLESS[number % len(HARMLESS)](rng) if number % 10 == 0 else ""
        rows.append(("", sentence(rng, odd)))
    rng.shuffle(rows)

    frame = pl.DataFrame(rows, schema=["kind", "content"], orient="row")
    may = frame.filter(suspects(pl.col("content")))
    found = [(kind, {one.kind for one in find_private(text)}) for kind, text in may.iter_rows()]

    assert sum(kind in seen for kind, seen in found if kind) >= 0.95 * 500
    assert sum(bool(seen) for kind, seen in found if not kind) <= len(rows) / 10_000


@pytest.mark.parametrize("kind", PLANTED)
def test_each_class_is_found_and_never_shown(kind: str) -> None:
    rng = random.Random(1)
    hits = 0
    for _ in range(20):
        planted = PLANTED[kind](rng)
        text = f"See {planted} there."
        seen = list(find_private(text))
        hits += kind in {one.kind for one in seen}
        assert all(len(one.ending) <= 4 and planted not in str(one) for one in seen)
        if seen:
            assert pl.select(suspects(pl.lit(text))).item()

    assert hits >= 19


@pytest.mark.parametrize(
    "text",
    [
        "4111111111111112",
        "GB82 WEST 1234 5698 7654 33",
        "10.0.0.1 and 999.1.1.1",
        "000-12-3456",
        "user@example.com",
        "AKIAIOSFODNN7EXAMPLE",
        "password = <your password here>",
    ],
)
def test_wrong_checksums_and_examples_of_manuals_are_ignored(text: str) -> None:
    assert list(find_private(text)) == []


@pytest.mark.parametrize("kind", ["card_number", "iban"])
def test_one_wrong_digit_fails_the_checksum(kind: str) -> None:
    """1,000 valid and 1,000 with a digit changed: at least 99 % of the matches are valid."""
    rng = random.Random(2)
    found, false = 0, 0
    for _ in range(1000):
        true = PLANTED[kind](rng)
        at = rng.choice([n for n, char in enumerate(true) if char.isdigit() and n > 0])
        wrong = f"{true[:at]}{(int(true[at]) + rng.randint(1, 9)) % 10}{true[at + 1 :]}"
        found += kind in {one.kind for one in find_private(f"it is {true} now")}
        false += kind in {one.kind for one in find_private(f"it is {wrong} now")}

    assert found == 1000
    assert false <= 0.01 * (found + false)


def test_a_short_secret_shows_nothing() -> None:
    assert (
        describe([SecretMatch("ip_address", is_secret=False, ending="????")]) == "ip_address …????"
    )
    (seen,) = find_private("call 212-45-1234")
    assert str(seen) == "social_security_number …????"


@pytest.mark.parametrize(
    ("address", "is_public"),
    [
        ("8.8.8.8", False),  # of four digits, as versions are
        ("8.8.8.80", True),
        ("172.15.1.30", True),
        *((address, False) for address in ("172.16.1.30", "172.20.1.30", "172.31.255.254")),
        *((address, False) for address in ("10.1.2.30", "127.0.0.1", "192.168.1.20")),
        *((address, False) for address in ("100.64.3.12", "169.254.7.70", "198.51.100.7")),
        *((address, False) for address in ("203.0.113.9", "192.0.2.44", "240.1.2.30")),
        *((address, False) for address in ("300.1.2.3", "08.8.8.80", "0.10.0.10")),
        ("104.16.132.229", True),
    ],
)
def test_only_public_addresses_are_personal(address: str, is_public: bool) -> None:
    found = [one.kind for one in find_private(f"It came from {address} yesterday.")]

    assert found == (["ip_address"] if is_public else [])
