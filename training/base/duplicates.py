"""Exact and near duplicates of files, found in one pass in the order that files come.

A file's shingles are its runs of three lines, white space stripped; its sketch is the smallest SKETCH_HASHES of their
hashes (bottom-k MinHash: Broder 1997), from which the Jaccard similarity of two files' shingle sets is estimated.
Candidates share one of the smallest BAND_HASHES: at a similarity of 0.8 two files miss each other there with a
chance far under one in a million.
"""

from __future__ import annotations

import hashlib
from heapq import nsmallest
from zlib import crc32

SKETCH_HASHES = 64
BAND_HASHES = 16
SHINGLE_LINES = 3
# Shingles that a file needs to be judged near anything: short files look alike by licence and imports alone.
SHINGLES_MIN = 8
SIMILARITY_MAX = 0.8
# Files in one bucket that are compared; a licence header's bucket would otherwise hold everything.
CANDIDATES_MAX = 64


def fingerprint(text: str) -> bytes:
    """Equal for texts that differ in white space only."""
    return hashlib.blake2b("".join(text.split()).encode(), digest_size=16).digest()


def sketch(text: str) -> list[int]:
    """The smallest hashes of a file's shingles, ascending; shorter than SHINGLES_MIN for a file too short to judge."""
    lines = [stripped.encode() for line in text.split("\n") if (stripped := "".join(line.split()))]
    # Two different checks of one shingle make 64 bits: 32 would collide across a corpus.
    shingles = {
        crc32(joined) << 32 | crc32(joined, 0x9E3779B9)
        for start in range(len(lines) - SHINGLE_LINES + 1)
        if (joined := b"\n".join(lines[start : start + SHINGLE_LINES]))
    }
    return nsmallest(SKETCH_HASHES, (mix(shingle) for shingle in shingles))


def mix(value: int) -> int:
    """A bijection of 64 bits that spreads what a checksum leaves in lines (the finaliser of SplitMix64)."""
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    value = (value ^ value >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return value ^ value >> 31


def similarity(first: list[int], second: list[int]) -> float:
    """Estimate of the Jaccard similarity of the sets behind two sketches."""
    union = nsmallest(SKETCH_HASHES, set(first) | set(second))
    shared = set(first) & set(second)
    return sum(1 for value in union if value in shared) / max(len(union), 1)


class Seen:
    """The files so far."""

    def __init__(self) -> None:
        self.fingerprints: set[bytes] = set()
        self.sketches: list[list[int]] = []
        self.buckets: dict[int, list[int]] = {}

    def add(self, text: str) -> str | None:
        """Remembers a file that is new; says `exact` or `near` for one that is not."""
        exact = fingerprint(text)
        if exact in self.fingerprints:
            return "exact"
        self.fingerprints.add(exact)
        hashes = sketch(text)
        if len(hashes) < SHINGLES_MIN:
            return None
        candidates = {index for value in hashes[:BAND_HASHES] for index in self.buckets.get(value, ())}
        if any(similarity(hashes, self.sketches[index]) >= SIMILARITY_MAX for index in candidates):
            return "near"
        self.sketches.append(hashes)
        for value in hashes[:BAND_HASHES]:
            bucket = self.buckets.setdefault(value, [])
            if len(bucket) < CANDIDATES_MAX:
                bucket.append(len(self.sketches) - 1)
        return None
