import re
import time
from collections.abc import Iterator
from copy import deepcopy

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.config.files import API_HASH, LEAST, RSA_PKCS1, TOKEN, Files

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


# --- what is nearly right ------------------------------------------------------------------------------------

PHONE = "+4917199887766"
SECRETS = ("s3cr3t-proxy-pass", TOKEN, API_HASH, PHONE)
WHOLE: dict[str, object] = {
    "telegram": {
        "api_id": 12345,
        "api_hash": API_HASH,
        "server": {"host": "127.0.0.1", "port": 4430, "dc_id": 2, "public_key": "dc.pem"},
    },
    "supervisor": {
        "state_dir": "state",
        "callbacks": [],
        "call_timeout": 60,
        "max_held": 9,
        "prove_every": 1.5,
    },
    "recovery": {"connection": {"action": "reconnect", "max_retries": 3, "base_delay": 1.0, "jitter": 0.25}},
    "classify": {"SOME_ID": {"kind": "temporary", "action": "retry", "scope": "call"}},
    "proxies": {"de1": {"url": f"socks5://u:{SECRETS[0]}@198.51.100.7:1080", "pool": "eu"}},
    "defaults": {"client": {"device_model": "PC"}},
    "accounts": {
        "bot": {"bot_token": TOKEN, "proxy": "eu", "main": "m:f"},
        "ann": {"phone": PHONE, "proxy": ["de1"]},
    },
}


def places(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key of the document, by its way."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*path, key)
            yield from places(item, (*path, key))


PLACES = list(places(WHOLE))
ODD = st.one_of(
    VALUES,
    st.sampled_from(
        [-1, 0, 2**63, 1e308, "", "\0", "x" * 5000, "..", "/", "${X}", "${", "a:b:c", "socks5://[::1", []]
    ),
    st.sampled_from(PLACES).map(lambda path: deepcopy(at(WHOLE, path))),
)
CHANGES = st.lists(
    st.tuples(st.sampled_from(["replace", "drop", "add"]), st.sampled_from(PLACES), INNER, ODD),
    min_size=1,
    max_size=4,
)


def at(value: object, path: tuple[str, ...]) -> object:
    """What stands there."""
    for key in path:
        assert isinstance(value, dict)
        value = value[key]
    return value


def changed(
    document: dict[str, object], changes: list[tuple[str, tuple[str, ...], str, object]]
) -> dict[str, object]:
    """The document with a few things in it as they should not be."""
    document = deepcopy(document)
    for how, path, name, odd in changes:
        table: object = document
        for key in path[:-1]:
            table = table.get(key) if isinstance(table, dict) else None
        if not isinstance(table, dict):
            continue  # an earlier change has taken it away
        if how == "replace":
            table[path[-1]] = deepcopy(odd)
        elif how == "drop":
            table.pop(path[-1], None)
        else:
            table[name] = deepcopy(odd)
    return document


@given(CHANGES)
@QUICK
def test_a_whole_configuration_with_a_few_things_wrong(
    files: Files, changes: list[tuple[str, tuple[str, ...], str, object]]
) -> None:
    """It loads, or each problem is told with its line and names the place, and no secret."""
    files.env = {"X": "x", "HOME": "/"}
    files.write({"dc.pem": RSA_PKCS1})
    text = "\n".join(f"{key} = {toml(value)}" for key, value in changed(WHOLE, changes).items())
    for problem in files.problems(text):
        assert re.match(r"accounts\.toml:\d+: \S", problem), problem
        assert "\n" not in problem
        assert len(problem) <= 2000
        for secret in SECRETS:
            assert secret not in problem


def test_the_whole_configuration_is_right(files: Files) -> None:
    """What the changes are made to has nothing wrong with it."""
    files.write({"dc.pem": RSA_PKCS1})
    assert files.problems("\n".join(f"{key} = {toml(value)}" for key, value in WHOLE.items())) == []


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 200_000,
        "a = " + "{a = " * 200_000,
        "[" + ".".join("a" * 50_000) + "]",
        "a" * 5_000_000,
        "\n" * 2_000_000,
        LEAST + "\n".join(f"[accounts.b{n}]\nbot_token = 5" for n in range(5000)),
        'include = ["accounts.toml", "./accounts.toml"]\n' + LEAST,
    ],
    ids=["lists", "tables", "keys", "a word", "lines", "accounts", "itself"],
)
def test_a_monster_is_told_of_in_time(files: Files, text: str) -> None:
    """Very deep, very long, or in a ring: problems, in seconds, and nothing is raised besides."""
    begun = time.process_time()
    for problem in files.problems(text):
        assert problem.startswith("accounts.toml:")
    assert time.process_time() - begun <= 5.0
