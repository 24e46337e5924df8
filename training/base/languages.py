"""Languages by file name, as crates/trainer/src/language.rs has them."""

from __future__ import annotations

LANGUAGES = ("python", "javascript", "typescript", "rust", "java", "go")

# `.pyi` files are left out of the corpus: they are declarations without bodies.
EXTENSIONS = {
    "py": "python",
    "js": "javascript",
    "mjs": "javascript",
    "cjs": "javascript",
    "jsx": "javascript",
    "ts": "typescript",
    "mts": "typescript",
    "cts": "typescript",
    "tsx": "typescript",
    "rs": "rust",
    "java": "java",
    "go": "go",
}


def language_of(path: str) -> str | None:
    """The language of a file, or None for what the corpus does not take."""
    name = path.rsplit("/", 1)[-1].lower()
    if name.endswith((".d.ts", ".d.mts", ".d.cts")):
        return None
    _, dot, extension = name.rpartition(".")
    return EXTENSIONS.get(extension) if dot else None
