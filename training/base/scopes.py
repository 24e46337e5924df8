"""Places where a person would ask for a completion, the same kinds as crates/trainer/src/scopes.rs cuts.

Spans are in characters here, since cuts are made in Python strings. A file without a grammar has its lines only.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from functools import cache

STATEMENT, ARGUMENTS, BODY, BLOCK, LINE = range(5)
KINDS = 5
# Files over this are parsed by lines only, as there.
PARSE_BYTES_MAX = 256 * 1024
SCOPE_CHARACTERS_MAX = 4 * 1024

BLOCKS = frozenset({"block", "statement_block", "constructor_body", "function_body"})
OTHER_BLOCKS = frozenset(
    {
        "class_body", "declaration_list", "field_declaration_list", "match_block",
        "switch_body", "switch_block", "interface_body", "enum_body",
    }
)  # fmt: skip
HOLDS_STATEMENTS = frozenset(
    {"module", "program", "source_file", "block", "statement_block", "statement_list", "constructor_body"}
)
DECLARATIONS = frozenset({"let_declaration", "lexical_declaration", "variable_declaration"})
CLOSURES = frozenset({"closure_expression", "lambda_expression", "func_literal"})

Scope = tuple[int, int, int]  # start, end, kind


def scopes(text: str, language: str, path: str = "") -> list[Scope]:
    """Every scope of a text, by start."""
    found = list(lines(text))
    parser = parser_of("tsx" if path.endswith(".tsx") else language)
    content = text.encode()
    if parser is not None and len(content) <= PARSE_BYTES_MAX:
        spans = list(syntax(parser.parse(content)))
        if len(content) != len(text):
            spans = characters(text, spans)
        found += [scope for start, end, kind in spans if (scope := trimmed(text, start, end, kind))]
    return sorted(set(found))


def lines(text: str) -> Iterator[Scope]:
    start = 0
    for line in text.splitlines(keepends=True):
        if scope := trimmed(text, start, start + len(line), LINE):
            yield scope
        start += len(line)


def trimmed(text: str, start: int, end: int, kind: int) -> Scope | None:
    """The span without white space at its ends; None for one that is blank or too long."""
    span = text[start:end]
    first = end - len(span.lstrip())
    last = start + len(span.rstrip())
    return (first, last, kind) if 0 < last - first <= SCOPE_CHARACTERS_MAX else None


@cache
def parser_of(language: str):
    """A parser, or None where there is no grammar or tree-sitter is not installed."""
    grammars = {
        "python": ("tree_sitter_python", "language"),
        "javascript": ("tree_sitter_javascript", "language"),
        "typescript": ("tree_sitter_typescript", "language_typescript"),
        "tsx": ("tree_sitter_typescript", "language_tsx"),
        "rust": ("tree_sitter_rust", "language"),
        "java": ("tree_sitter_java", "language"),
        "go": ("tree_sitter_go", "language"),
    }
    if language not in grammars:
        return None
    try:
        import importlib

        from tree_sitter import Language, Parser

        module, function = grammars[language]
        return Parser(Language(getattr(importlib.import_module(module), function)()))
    except ImportError:
        return None


def syntax(tree) -> Iterator[Scope]:
    """Byte spans of a tree's scopes; walks without recursion."""
    cursor = tree.walk()
    above: list[str] = [""]
    while True:
        node = cursor.node
        kind = node.type
        if node.is_named and kind != "ERROR":
            yield from scope_of(node, kind, above[-1])
        if kind != "ERROR" and node.child_count and cursor.goto_first_child():
            above.append(kind)
            continue
        while not cursor.goto_next_sibling():
            if not cursor.goto_parent():
                return
            above.pop()


def scope_of(node, kind: str, parent: str) -> Iterator[Scope]:
    """At most one scope: what a node is to a person who types."""
    if kind in ("argument_list", "arguments"):
        yield (*inside(node), ARGUMENTS)
    elif kind in BLOCKS:
        yield (*inside(node), BODY if is_function(parent) else BLOCK)
    elif kind in OTHER_BLOCKS:
        yield (*inside(node), BLOCK)
    elif "comment" not in kind and (kind.endswith("_statement") or kind in DECLARATIONS or parent in HOLDS_STATEMENTS):
        yield (node.start_byte, node.end_byte, STATEMENT)


def is_function(kind: str) -> bool:
    return "function" in kind or "method" in kind or "constructor" in kind or kind in CLOSURES


def inside(node) -> tuple[int, int]:
    """A node's span without its brackets."""
    count = node.child_count
    if count >= 2 and node.child(0).type in ("(", "{") and node.child(count - 1).type in (")", "}"):
        return node.start_byte + 1, node.end_byte - 1
    return node.start_byte, node.end_byte


def characters(text: str, spans: list[Scope]) -> list[Scope]:
    """Byte spans as spans of characters."""
    starts = []
    position = 0
    for character in text:
        starts.append(position)
        position += len(character.encode())
    starts.append(position)
    return [(bisect_left(starts, start), bisect_left(starts, end), kind) for start, end, kind in spans]
