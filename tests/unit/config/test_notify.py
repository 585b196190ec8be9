"""[notify.NAME], [sentry] and [logging], and what is said where they are wrong."""

from __future__ import annotations

import importlib.util

import pytest

from supervisor.config import notify
from supervisor.config.model import Secret, Sentry
from supervisor.core.failure import Level
from tests.unit.config.files import LEAST, TOKEN_2, Files

LINE = LEAST.count("\n") + 1  # of the first line after it
SINKS = f"""
[notify.ops]
url = "https://hooks.example.org/secret"
[notify.phone]
token = "{TOKEN_2}"
chat = -1001234567890
level = "fatal"
[notify.own]
bot = ["bot"]
chat = "@ops_room"
[notify.journal]
log = true
level = "info"
[notify.any]
url_file = "slack.url"
[notify.local]
token_file = "token"
chat = "42"
api = "http://127.0.0.1:8081/"
"""


def test_every_sort_of_sink(files: Files) -> None:
    """A webhook, Telegram, an account of ours, the log, apprise; secrets may be files."""
    files.write({"slack.url": "slack://a/b/c\n", "token": TOKEN_2})
    config = files.load(LEAST + SINKS)
    sinks = config.notify
    assert {name: sink.sort for name, sink in sinks.items()} == {
        "ops": "webhook",
        "phone": "telegram",
        "own": "bot",
        "journal": "log",
        "any": "apprise",
        "local": "telegram",
    }
    assert [sink.level for sink in sinks.values()] == [
        Level.WARNING,
        Level.FATAL,
        Level.WARNING,
        Level.INFO,
        Level.WARNING,
        Level.WARNING,
    ]
    phone, local = sinks["phone"], sinks["local"]
    assert (phone.chat, phone.api, local.api) == (
        "-1001234567890",
        "https://api.telegram.org",
        "http://127.0.0.1:8081",
    )
    assert (sinks["own"].bots, sinks["ops"].place) == (("bot",), f"accounts.toml:{LINE + 1}")
    assert "secret" not in repr(config)
    assert TOKEN_2 not in repr(config)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("", "needs one of url, token, bot, log"),
        ("log = false", "needs one of url, token, bot, log"),
        ('url = "https://x.org"\nlog = true', "has url and log; give one of them"),
        ('token = "x"\nchat = 1', "token: is not a bot's token"),
        (f'token = "{TOKEN_2}"', "chat: is missing"),
        ('bot = "bott"\nchat = 1', 'bot: no account is called "bott" (did you mean "bot"?)'),
        ('bot = "bot"\nchat = 1.5', "chat: must be a chat's number or @name, not a number"),
        ('bot = "bot"\nchat = "ops room"', "chat: must be a chat's number, as -1001234567890, or its @name"),
        ('url = "hooks.example.org"', "url: must be a url"),
        ("log = true\nchat = 1", "chat: goes with token and bot, not with log"),
        ('bot = "bot"\nchat = 1\napi = "http://x.org"', "api: goes with token, not with bot"),
        ('url = "https:///x"', "url: names no host"),
        ('url = "https://x.org:99999"', "url: names no host"),
        (
            'log = true\nlevel = "loud"',
            'level: must be one of info, warning, error, fatal, not "loud"',
        ),
        ('log = true\nlevle = "info"', 'levle: unknown (did you mean "level"?)'),
        (f'token = "{TOKEN_2}"\nchat = 1\napi = "telegram"', "api: must be an address such as"),
    ],
)
def test_what_is_wrong_with_a_sink_has_its_line(files: Files, table: str, said: str) -> None:
    """One problem, where it stands, and no secret in it."""
    problem = files.problem(f"{LEAST}[notify.ops]\n{table}\n")
    place, _, text = problem.partition(": ")
    assert LINE <= int(place.rpartition(":")[2]) <= LINE + 3
    assert text.startswith(("notify.ops: " + said, "notify.ops." + said))


def test_a_sink_has_a_name_and_is_a_table(files: Files) -> None:
    """As anything else has."""
    assert files.problems(f'{LEAST}[notify]\nx = 1\n"a b" = {{ log = true }}\n') == [
        f"accounts.toml:{LINE + 1}: notify.x: must be a table, not a whole number",
        f"accounts.toml:{LINE + 2}: notify.\"a b\": its name must be letters, digits, '.', '_' and '-', 64 at most",
    ]


def test_what_is_not_installed_is_said_with_what_installs_it(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """apprise and Sentry's client are extras."""
    found = importlib.util.find_spec
    absent = {"apprise", "sentry_sdk"}
    monkeypatch.setattr(notify, "find_spec", lambda name: None if name in absent else found(name))
    tables = '[notify.ops]\nurl = "slack://a/b/c"\n[sentry]\ndsn = "https://key@example.org/1"\n'
    assert files.problems(LEAST + tables) == [
        f"accounts.toml:{LINE + place}: {key}: needs {package}, which is not installed: "
        f'pip install "tg-supervisor[{extra}]"'
        for place, key, package, extra in (
            (1, "notify.ops.url", "apprise", "notify"),
            (3, "sentry.dsn", "sentry_sdk", "sentry"),
        )
    ]


def test_sentry_and_logging(files: Files) -> None:
    """Off unless configured; a DSN has a key, a host and a project."""
    config = files.load(LEAST)
    assert (config.sentry, config.log_format, dict(config.notify)) == (None, "text", {})
    files.env = {"DSN": "https://key@example.org/1"}
    config = files.load(
        LEAST + '[sentry]\ndsn = "${DSN}"\nenvironment = "test"\n[logging]\nformat = "json"\n'
    )
    assert config.sentry == Sentry(Secret("https://key@example.org/1"), "test")
    assert config.log_format == "json"
    for dsn in ("https://example.org/1", "key", "https://key@example.org", "https://[x/1"):
        assert "is not a Sentry DSN" in files.problem(f'{LEAST}[sentry]\ndsn = "{dsn}"\n')
    assert "dsn: is missing" in files.problem(LEAST + "[sentry]\n")
    assert "must be one of text, json" in files.problem(LEAST + '[logging]\nformat = "xml"\n')
