from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.config.files import LEAST, Files

WORDS = st.sampled_from(
    (
        "include telegram supervisor recovery classify proxies defaults accounts api_id api_hash server host port dc_id "
        "public_key state_dir callbacks max_held call_timeout missed_updates proxy flood_wait action max_retries kind "
        "scope url pool bot_token phone password session_file session_string plugins main client x y direct _file ~ "
        ". .. / ${X} ${HOME} $${ ${ 1 -1 1.5 inf nan true 2020-01-01 0x1f a:b socks5://u:p@h:1 [ ] [[ ]] { } = , . \n \" ' "
        '""" # \\u0000 \u00e9 \U0001f600 \x7f \x85 * ** ?'
    ).split(" ")
)
SCALARS = st.one_of(
    st.none().map(lambda _: "1"),
    WORDS.filter(str.isprintable).map(lambda word: "'" + word.replace("'", "") + "'"),
)
LINES = st.one_of(
    st.tuples(WORDS, SCALARS).map(lambda pair: f"{pair[0]} = {pair[1]}"),
    st.lists(WORDS, min_size=1, max_size=3).map(lambda keys: f"[{'.'.join(keys)}]"),
    st.lists(WORDS, max_size=6).map(" ".join),
)
QUICK = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)


@given(st.one_of(st.binary(), st.text().map(lambda text: text.encode("utf-8", "surrogatepass"))))
@QUICK
def test_any_bytes(files: Files, content: bytes) -> None:
    """No content whatever makes `load` raise anything but ConfigError, and every problem begins with its place."""
    for problem in files.problems(content):
        assert problem.startswith("accounts.toml:")


@given(st.lists(LINES, max_size=12).map("\n".join))
@QUICK
def test_any_words(files: Files, content: str) -> None:
    """Nor does anything that looks like a configuration."""
    files.env = {"X": "\udcff\0", "HOME": "~"}
    for text in (content, LEAST + content):
        for problem in files.problems(text):
            assert problem.startswith("accounts.toml:")


KEYS = ("include", "telegram", "supervisor", "recovery", "classify", "proxies", "defaults", "accounts")
INNER = WORDS.filter(lambda word: word.isascii() and word.isidentifier())
VALUES = st.recursive(
    st.one_of(WORDS, st.integers(), st.booleans(), st.floats()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(INNER, inner, max_size=4)),
    max_leaves=10,
)


def toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(toml(item) for item in value) + "]"
    if isinstance(value, str):
        return (
            '"' + "".join(c if c.isalnum() or c in "$}{:/._~*? " else f"\\U{ord(c):08x}" for c in value) + '"'
        )
    return str(value).lower()


@given(st.dictionaries(st.sampled_from(KEYS), st.one_of(VALUES, st.dictionaries(INNER, VALUES))))
@QUICK
def test_any_values(files: Files, document: dict[str, object]) -> None:
    """Nor does any value in any place."""
    files.env = {"X": "x", "HOME": "/"}
    text = "\n".join(f"{key} = {toml(value)}" for key, value in document.items())
    for problem in files.problems(text):
        assert problem.startswith("accounts.toml:")
        assert "it is not TOML" not in problem or "e+" in text or "range" in problem, text
