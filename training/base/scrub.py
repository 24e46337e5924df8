"""Secrets out of source text: rules for strings whose shape alone says that they are secrets.

What was found is counted by rule and never shown. Entropy is not looked at: a hash in a test is no secret, and
replacing it would teach the model that hashes look like our placeholder.
"""

from __future__ import annotations

import re
from collections import Counter

RULES: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "private_key",
        re.compile(
            r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----[\s\S]{40,8000}?-----END (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----"
        ),
    ),
    ("cloud_access_key", re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b")),
    ("forge_token", re.compile(r"\bgh[pousr]_[A-Za-z0-9]{36,255}\b|\bgithub_pat_[A-Za-z0-9_]{60,255}\b")),
    ("forge_token", re.compile(r"\bglpat-[A-Za-z0-9_-]{20,}")),
    ("chat_token", re.compile(r"\bxox[abprs]-[A-Za-z0-9-]{20,}")),
    ("payment_key", re.compile(r"\b[rs]k_live_[A-Za-z0-9]{16,}")),
    ("search_key", re.compile(r"\bAIza[0-9A-Za-z_-]{35}\b")),
    ("package_token", re.compile(r"\bnpm_[A-Za-z0-9]{36}\b|\bpypi-[A-Za-z0-9_-]{60,}")),
    ("model_key", re.compile(r"\bsk-(?:proj-|ant-)?[A-Za-z0-9_-]{40,}")),
    ("web_token", re.compile(r"\beyJ[A-Za-z0-9_-]{16,}\.eyJ[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{20,}")),
    ("url_password", re.compile(r"(?<=://)[A-Za-z0-9._-]{1,64}:[^\s:@/'\"{}$<>%*]{6,128}(?=@[A-Za-z0-9])")),
)

PLACEHOLDER = "REMOVED"


def scrub(text: str) -> tuple[str, Counter[str]]:
    """The text with each secret replaced, and how many of each kind there were."""
    counts: Counter[str] = Counter()
    for name, pattern in RULES:
        text, count = pattern.subn(PLACEHOLDER, text)
        if count:
            counts[name] += count
    return text, counts
