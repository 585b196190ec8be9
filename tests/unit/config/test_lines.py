import json
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.config.lines import KeyPath, key_lines

TEXT = '''\
# a comment with a = 1 and [a.table]
top = 1
"quoted key".sub = "a # b \\" c" # comment
'literal.key' = \'\'\'
not = "a key"
[nor.a.table]\'\'\'
"esc\\u0061ped" = """
x = 1 \\
""" # done

[ a . "b c" ]   # comment
multi = [
  1, # one
  [ 2, { deep = 3 } ],
  """
  text"""  , { x = 1, y.z = [
    4 ] },
]
date = 1979-05-27 07:32:00Z
[a]
own = { } # after its child

[[list]]
n = 1
[[list]]
[list.sub]
n = 2
[[list.more]]
ends = """two quotes at its end"""""
after = \'\'\'one\'\'\'\'
last = [ ]'''

LINES: dict[KeyPath, int] = {
    ("top",): 2,
    ("quoted key",): 3,
    ("quoted key", "sub"): 3,
    ("literal.key",): 4,
    ("escaped",): 7,
    ("a",): 20,
    ("a", "b c"): 11,
    ("a", "b c", "multi"): 12,
    ("a", "b c", "multi", 0): 13,
    ("a", "b c", "multi", 1): 14,
    ("a", "b c", "multi", 1, 0): 14,
    ("a", "b c", "multi", 1, 1): 14,
    ("a", "b c", "multi", 1, 1, "deep"): 14,
    ("a", "b c", "multi", 2): 15,
    ("a", "b c", "multi", 3): 16,
    ("a", "b c", "multi", 3, "x"): 16,
    ("a", "b c", "multi", 3, "y"): 16,
    ("a", "b c", "multi", 3, "y", "z"): 16,
    ("a", "b c", "multi", 3, "y", "z", 0): 17,
    ("a", "b c", "date"): 19,
    ("a", "own"): 21,
    ("list",): 23,
    ("list", 0): 23,
    ("list", 0, "n"): 24,
    ("list", 1): 25,
    ("list", 1, "sub"): 26,
    ("list", 1, "sub", "n"): 27,
    ("list", 1, "more"): 28,
    ("list", 1, "more", 0): 28,
    ("list", 1, "more", 0, "ends"): 29,
    ("list", 1, "more", 0, "after"): 30,
    ("list", 1, "more", 0, "last"): 31,
}


def test_every_construct() -> None:
    """Headers, dotted and quoted keys, strings over lines, arrays and inline tables: each key has its line."""
    assert key_lines(TEXT) == LINES


@pytest.mark.parametrize("text", ["", "\n", "# only", "a = 1", "a = 1 # x", "[a]"])
def test_ends(text: str) -> None:
    """A text may end without a line end, anywhere."""
    assert set(key_lines(text).values()) <= {1}


def paths(value: object, path: KeyPath = ()) -> set[KeyPath]:
    """The path of everything in a value."""
    items: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    return {path}.union(*(paths(item, (*path, key)) for key, item in items))


# Generated TOML: a nested value is written in one of the styles that the grammar has for it.

KEYS = st.one_of(
    st.from_regex(r"[A-Za-z0-9_-]{1,4}", fullmatch=True),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=4),
)
STRINGS = st.text(st.sampled_from("ab=[]{}#,.'\"\\\n \t$"), max_size=8)
VALUES = st.recursive(
    st.one_of(st.integers(-9, 9), st.booleans(), st.just(1.5), STRINGS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=12,
)
DOCUMENTS = st.dictionaries(KEYS, VALUES, max_size=5)


def basic(text: str) -> str:
    """A basic string: JSON's escapes are among TOML's, but for surrogates."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


class Writer:
    """Writes a document as TOML and keeps the line of every key, as it was written."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.text = ""
        self.lines: dict[KeyPath, int] = {}

    @property
    def line(self) -> int:
        return self.text.count("\n") + 1

    def choose(self, *choices: str) -> str:
        return self.draw(st.sampled_from(choices))

    def key(self, key: str) -> str:
        styles = [basic(key)]
        if key and key.isascii() and key.replace("_", "a").replace("-", "a").isalnum():
            styles.append(key)
        if "'" not in key and "\x7f" not in key:
            styles.append(f"'{key}'")
        return self.choose(*styles)

    def table(self, table: dict[str, Any], path: KeyPath) -> None:
        later = []
        for key, value in table.items():
            if isinstance(value, dict) and self.choose("header", "inline") == "header":
                later.append((key, value))
                continue
            self.text += self.choose("", "\n", "# a = 1\n", "  ")
            self.pair(key, value, path)
            self.text += self.choose("\n", " # b = [\n", "\n\n")
        for key, value in later:
            self.text += self.choose("", "\n", "# [x]\n")
            self.lines[*path, key] = self.line
            names = [self.key(str(part)) for part in (*path, key)]
            self.text += "[" + self.choose(".", " . ").join(names) + "]\n"
            self.table(value, (*path, key))

    def pair(self, key: str, value: object, path: KeyPath) -> None:
        self.lines[*path, key] = self.line
        self.text += self.key(key) + self.choose("=", " = ", "\t=")
        self.value(value, (*path, key))

    def value(self, value: object, path: KeyPath) -> None:
        if isinstance(value, str):
            self.string(value)
        elif isinstance(value, list):
            self.text += "["
            for index, item in enumerate(value):
                self.text += self.choose("", "\n", "  # ]\n")
                self.lines[*path, index] = self.line
                self.value(item, (*path, index))
                self.text += "," if index + 1 < len(value) else self.choose("", ",", "\n", ",\n# ]\n")
            self.text += "]"
        elif isinstance(value, dict):
            self.text += "{ "
            for index, (key, item) in enumerate(value.items()):
                self.pair(key, item, path)
                self.text += ", " if index + 1 < len(value) else ""
            self.text += "}"
        else:
            self.text += json.dumps(value)

    def string(self, value: str) -> None:
        styles = [basic(value)]
        if "'" not in value and "\n" not in value:
            styles.append(f"'{value}'")
        if "'''" not in value and not value.endswith("'"):
            styles.append(f"'''\n{value}'''")
        if '"""' not in value and "\\" not in value:
            styles.append(f'"""\n{value}"""')
        self.text += self.choose(*styles)


@st.composite
def written(draw: st.DrawFn) -> tuple[dict[str, Any], Writer]:
    document = draw(DOCUMENTS)
    writer = Writer(draw)
    writer.table(document, ())
    return document, writer


@given(written())
def test_generated(case: tuple[dict[str, Any], Writer]) -> None:
    """However a document is written, every key is found on the line on which it was written, and no other is found."""
    document, writer = case
    assert tomllib.loads(writer.text) == document, writer.text
    found = key_lines(writer.text)
    assert set(found) == paths(document) - {()}
    assert found == writer.lines
