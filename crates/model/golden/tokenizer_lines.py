"""Chooses the text of the tokenizer parity test: real code lines and hard cases.

Lines come from Python's own standard library (chosen by a fixed seed, so the choice depends on
the Python version), from tokenizer/snippets.txt, which this project wrote, and from EDGE_LINES.
"""

import random
import sysconfig
from pathlib import Path

STDLIB_LINES = 1150
LINE_CHARACTERS_MAX = 160
STDLIB_MODULES = [
    "argparse.py", "ast.py", "asyncio/base_events.py", "base64.py", "bisect.py", "calendar.py", "cmd.py",
    "collections/__init__.py", "concurrent/futures/thread.py", "configparser.py", "contextlib.py", "csv.py",
    "dataclasses.py", "datetime.py", "decimal.py", "difflib.py", "email/header.py", "enum.py", "fractions.py",
    "functools.py", "gettext.py", "heapq.py", "html/parser.py", "http/client.py", "inspect.py", "ipaddress.py",
    "json/encoder.py", "logging/__init__.py", "mailbox.py", "mimetypes.py", "pathlib.py", "pickle.py",
    "pprint.py", "queue.py", "random.py", "sched.py", "shlex.py", "shutil.py", "smtplib.py", "statistics.py",
    "string.py", "subprocess.py", "tarfile.py", "tempfile.py", "textwrap.py", "tokenize.py", "traceback.py",
    "typing.py", "unittest/mock.py", "urllib/parse.py", "uuid.py", "weakref.py", "xml/dom/minidom.py", "zipfile.py",
]  # fmt: skip

EDGE_LINES = [
    # White space: leading, trailing, mixed, tabs, carriage returns, Unicode spaces.
    "", " ", "  ", "   ", "    ", "\t", "\t\t", " \t", "\t ", "\r", " \r", "\t\r", "\r\r", "x\r", "x \r", "x\t\r",
    "    return x", "\treturn x", "\t\treturn x  ", "  \t  mixed", "trailing   ", "trailing\t", "a  b   c    d",
    "a\tb\t\tc", "a \tb", "if x:\r", "    pass\r", "a\rb", "a\r\rb", "a\u00a0b", "\u00a0\u00a0x", "a\u2003b",
    "a\u2028b", "a\u2029b", "a\u0085b", "\u3000全角", "a\u200bb", "\ufeffimport os", "a\u180eb", "a\x0bb", "a\x0cb",
    "\x0c", "a\x1cb\x1db\x1eb\x1fb", " " * 17 + "x", " " * 64 + "x", " " * 128, "\t" * 12 + "x",
    # Contractions and their case folding, which the split expression treats apart.
    "it's don't I'll we've they're I'm he'd", "IT'S DON'T I'LL WE'VE THEY'RE I'M HE'D", "'s 't 're 've 'm 'll 'd",
    "x='s'", "f'{a}'", "'sa'ta'rea'vea'ma'lla'da", "it\u2019s", "'\u017f", "x'\u017fy", "'LL'Re'vE", "''s''", "rock'n'roll",
    # Numbers.
    "0", "1234567890", "3.141592653589793238462643383279", "0xDEADBEEF", "1_000_000", "1e-10", "v1.2.3-rc4", "a1b2c3",
    "99999999999999999999999999999999", "٣٤٥", "१२३", "½ ¾ Ⅷ ² ₃", "一二三123", "1,234,567.89", "2024-02-29T23:59:60Z",
    "192.168.0.1:8080", "#ff8800", "0b1010 0o777",
    # Punctuation runs.
    "==", "!==", "===", ">>>=", "->", "=>", "::", "...", "**kwargs", "(((())))", "[[[]]]", "{{}}", "{%- if %}",
    "/* c */ // d # e", "\"\"\"", "'''", "\\n\\t\\\\", "`${x}`", "<!-- -->", "<?php ?>", "~!@#$%^&*()_+`-={}|[]\\:\";'<>?,./",
    "----------------------------------------", "================================", "################", "****", "…", "«»", "“x”",
    "a_b__c___d", "__init__", "_", "__", "$x $$", "@decorator", "a.b.c.d()", "x+=1;y-=1", " (", " )", " {", " }", " ;", "?.", "??=",
    # Scripts, combining marks, emoji, joiners, invalid-looking but valid code points.
    "naïve café résumé", "cafe\u0301 e\u0301\u0300", "Ελληνικά", "Привет, мир", "שלום עולם", "مرحبا بالعالم", "नमस्ते दुनिया",
    "สวัสดีชาวโลก", "你好，世界", "こんにちは世界", "안녕하세요 세계", "Tiếng Việt", "Straße ẞ ǅ ŉ", "ﬁ ﬂ ﬀ", "Ａｂｃ１２３", "𝒜𝓑 𝟘𝟙",
    "😀", "😀😃😄", "👩‍💻 👨‍👩‍👧‍👦", "🇫🇷🇯🇵", "👍🏽", "❤️", "✅ done ❌", "x = '🎉' # 🚀", "┌─┐│└┘", "→ ← ↑ ↓ ⇒ ∀x∈S ∑ ∫ ≠ ≤",
    "\u0000", "a\u0000b", "\u007f", "\u0080", "\ufffd", "\uffff", "\U0010ffff", "\ue000", "\u0301", "\u200d", "\ufe0f",
    "İstanbul ı", "K Å", "ʼn", "ǆ", "ᏸ", "Ꭰ", "ꭰ", "\U00016e40", "\U0001e900", "\U0001f9ff", "\u1c89", "\ua7cb", "\u088f",
    # Special tokens as text, whole, broken and glued.
    "<|endoftext|>", "<|fim_prefix|>def f():<|fim_suffix|>    return x<|fim_middle|>", "<|fim_pad|>", "<|repo_name|>acme/tool",
    "<|file_sep|>src/main.py", "<|im_start|>user", "<|im_end|>", "a<|endoftext|>b", " <|endoftext|> ", "<|endoftext|><|endoftext|>",
    "<|endoftext|", "<|endoftext", "|endoftext|>", "<|ENDOFTEXT|>", "< |endoftext|>", "<|endoftext |>", "<<|endoftext|>>",
    "<|unknown|>", "x<|fim_prefix|", "<|fim_<|fim_prefix|>prefix|>", "# <|fim_middle|> in a comment", "s = '<|endoftext|>'",
    "\t<|file_sep|>\t", "<|repo_name|><|file_sep|><|fim_prefix|>", "1<|im_start|>2", "é<|im_end|>é", "  <|fim_suffix|>", "'s<|fim_pad|>'s",
]  # fmt: skip

# Texts of several lines: they cannot stand in lines.txt.
TEXTS = [
    "",
    "\n",
    "\n\n",
    "\n\n\n",
    "\r\n",
    "\r\n\r\n",
    "\n\r",
    " \n",
    "\n ",
    "\n\n    ",
    "a\n",
    "a \n b",
    "a\n\n\nb",
    "a\t\n\tb\n",
    "x = 1  \n\n\n    y = 2\n",
    "def f(x):\n    return x + 1\n\n\nclass A:\n    pass\n",
    "def f(x):\r\n    return x + 1\r\n\r\n\r\nclass A:\r\n    pass\r\n",
    "func main() {\n\tfor {\n\t\tprintln(1)\n\t}\n}\n",
    "if (a) {\n  b();\n} else {\n  c();\n}\n",
    "# one\n#\n# two\n\n   \n\t\n",
    "<|fim_prefix|>def add(a, b):\n    return <|fim_suffix|>\n\n\ndef sub(a, b):\n<|fim_middle|>a + b<|endoftext|>",
    "<|repo_name|>acme\n<|file_sep|>a.py\nx = 1\n<|file_sep|>b.py\ny = 2\n<|endoftext|>",
    "<|endoftext|>\n<|endoftext|>",
    "\n<|fim_middle|>\n",
    "'''\n<|fim_prefix|>\n'''\n",
    "text\u2028more\u2029more\u0085more\x0bmore\x0cmore\n",
    "😀\n👩‍💻\n\n你好\n",
    " " * 40 + "\n" + "\t" * 9 + "\n",
    "\n" * 20,
    "a" * 300,
    "ab " * 100,
    "=" * 200 + "\n",
    "1" * 120,
    "é" * 100,
    "😀" * 50,
]


def stdlib_lines() -> list[str]:
    """Distinct lines of the standard library, in a fixed random order."""
    root = Path(sysconfig.get_path("stdlib"))
    lines: dict[str, None] = {}
    for module in STDLIB_MODULES:
        for line in (root / module).read_text(encoding="utf-8").split("\n"):
            if line.strip() and len(line) <= LINE_CHARACTERS_MAX:
                lines[line] = None
    return random.Random("atelier tokenizer lines").sample(list(lines), STDLIB_LINES)


def collect_lines(folder: Path) -> list[str]:
    """Every line of lines.txt; none holds a line feed."""
    snippets = (folder / "snippets.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")
    lines = [*EDGE_LINES, *snippets, *stdlib_lines()]
    assert not any("\n" in line for line in lines)
    return lines
