from pathlib import Path

import pytest

from supervisor.config.load import load
from supervisor.config.model import Settings
from supervisor.config.sections import SETTINGS
from supervisor.core.failure import DEFAULT_POLICIES, Action, Kind, Override, Policy, Remedy, Scope
from supervisor.errors import ConfigError
from tests.unit.config.files import (
    ACCOUNT,
    API_HASH,
    LEAST,
    PHONE,
    RSA_PKCS1,
    SESSION,
    TELEGRAM,
    TOKEN,
    TOKEN_2,
    Files,
    session_file,
)

PROXIES = """
[proxies.de1]
url = "socks5://198.51.100.7:1080"
pool = "eu"
[proxies.nl3]
url = "http://user@198.51.100.8:3128"
pool = "eu"
[proxies.us1]
url = "socks4://198.51.100.9:1080"
"""

TEN_MISTAKES = """\
include = ["none/*.toml"]
colour = "red"

[telegram]
api_id = "12345"
api_hash = "${TG_API_HASH}"

[supervisor]
call_timeout = -1
retention_dais = 30
missed_updates = "fetchh"

[recovery.conection]
max_retries = 3

[proxies.nl3]
url = "socks9://198.51.100.7:1080"

[accounts.sales-user]
phone = "+4915112345678"
password_file = "sales-user.2fa"
proxy = ["nl3",
         "n13"]
"""


def test_ten_mistakes(files: Files) -> None:
    """Ten different mistakes are reported at once, each with its line, its key and what was probably meant."""
    assert files.problems(TEN_MISTAKES) == [
        "accounts.toml:2: colour: unknown",
        "accounts.toml:5: telegram.api_id: must be a whole number, not a string",
        "accounts.toml:6: telegram.api_hash: the variable TG_API_HASH is not set",
        "accounts.toml:9: supervisor.call_timeout: must be a number of seconds, over 0",
        'accounts.toml:10: supervisor.retention_dais: unknown (did you mean "retention_days"?)',
        'accounts.toml:11: supervisor.missed_updates: must be one of fetch, skip, not "fetchh" (did you mean "fetch"?)',
        'accounts.toml:13: recovery.conection: unknown (did you mean "connection"?)',
        'accounts.toml:17: proxies.nl3.url: its scheme must be socks5, socks4 or http (did you mean "socks5"?)',
        (
            "accounts.toml:21: accounts.sales-user.password_file: no such file; "
            f"a relative path starts from {files.folder}"
        ),
        'accounts.toml:23: accounts.sales-user.proxy: no proxy or pool is called "n13" (did you mean "nl3"?)',
    ]


# the whole


def test_least(files: Files) -> None:
    """Credentials and one account are enough; everything else has PRODUCT.md's defaults."""
    config = files.load(LEAST)
    assert config.settings == Settings(state_dir=files.folder / "state")
    assert config.policies == DEFAULT_POLICIES
    assert (config.telegram.api_id, config.telegram.api_hash.reveal()) == (12345, API_HASH)
    assert list(config.accounts) == ["bot"]
    assert config.accounts["bot"].proxies == ()
    assert config.path == files.folder / "accounts.toml"
    assert config.search_path == (files.folder,)


def test_every_setting_has_a_reader() -> None:
    """No field of Settings can be forgotten by the loader."""
    assert {"state_dir", *SETTINGS} == set(Settings.__dataclass_fields__)


def test_names_as_given(files: Files) -> None:
    """A problem names the file as the user did, and an included one beside it."""
    files.write({"conf/accounts.toml": f'include = ["d/*"]\n{TELEGRAM}', "conf/d/a.toml": "\n[accounts.x]"})
    for name in ("conf/accounts.toml", str(files.folder / "conf/accounts.toml")):
        with pytest.raises(ConfigError) as error:
            load(name, env={})
        assert error.value.problems == [
            (
                f"{Path(name).parent}/d/a.toml:2: accounts.x: "
                "needs one of bot_token, phone, session_file and session_string"
            )
        ]


def test_missing_file(files: Files) -> None:
    """A configuration that is not there is a ConfigError that names it."""
    with pytest.raises(
        ConfigError, match=r"^none\.toml: the configuration file cannot be read: No such file"
    ):
        load("none.toml")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a = 1\nb = \n", 2),
        ("[a\n", 1),
        ('a = 1\n\nb = """never\nclosed\n', 4),
        ("a = 1\na = 2", 2),
        (b"a = 1\nb = '\xff'", 2),
        ("a = 1" + "0" * 5000, 1),
        ("a = " + "[" * 5000, 1),
    ],
)
def test_syntax(files: Files, text: str | bytes, line: int) -> None:
    """What is not TOML is one problem, with the line."""
    assert files.problem(text).startswith(f"accounts.toml:{line}: it is ")


def test_depth(files: Files) -> None:
    """Nesting of any depth, by brackets or by dots, is read or refused."""
    nested = [f"a = {'[' * depth}{']' * depth}" for depth in range(300, 520, 10)]
    for client in (*nested, "a" + ".a" * 3000 + " = 1"):
        for problem in files.problems(f"{LEAST}[accounts.bot.client]\n{client}"):
            assert problem.endswith("nested too deeply")
        assert files.problems(f"x = 1\n{client}\n{LEAST}")


def test_byte_order_mark(files: Files) -> None:
    """The mark that Windows editors put first, and their line ends, do no harm."""
    assert files.load("\ufeff" + LEAST.replace("\n", "\r\n")).accounts


@pytest.mark.parametrize("text", ["", "[accounts]"])
def test_nothing(files: Files, text: str) -> None:
    """An empty file misses the credentials and an account."""
    assert files.problems(text) == [
        "accounts.toml:1: telegram.api_id: is missing",
        "accounts.toml:1: telegram.api_hash: is missing",
        "accounts.toml:1: accounts: no account is configured; add one as [accounts.NAME]",
    ]


def test_missing_key_has_its_tables_line(files: Files) -> None:
    """A key that is missing is reported at the header of its table."""
    assert files.problem(f"\n\n[telegram]\napi_id = 1\n{ACCOUNT}") == (
        "accounts.toml:3: telegram.api_hash: is missing"
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("accounts = 5\n" + TELEGRAM, "accounts: must be a table, not a whole number"),
        ("[[accounts]]\nx = 1\n" + TELEGRAM, "accounts: must be a table, not a list"),
        (LEAST + "[account.x]\n", 'account: unknown (did you mean "accounts"?)'),
        (LEAST + "[accounts]\nx = 'y'", "accounts.x: must be a table, not a string"),
        (LEAST + "[recovery]\nproxy = 1", "recovery.proxy: must be a table, not a whole number"),
        (LEAST + "[proxies]\nx = 2020-01-01", "proxies.x: must be a table, not a date or time"),
        ("include = 'x'\n" + LEAST, "include: must be a list of paths, not a string"),
        ("include = [1]\n" + LEAST, "include: must be a path, not a whole number"),
        ("include = ['']\n" + LEAST, "include: is no path"),
        ('include = ["a\\u0000"]\n' + LEAST, "include: is no path"),
    ],
)
def test_wrong_shape(files: Files, text: str, problem: str) -> None:
    """A table that is none is told apart from one that is missing."""
    assert any(found.endswith(": " + problem) for found in files.problems(text)), files.problems(text)


# include


def test_include(files: Files) -> None:
    """Included files add accounts, proxies and settings; their paths start where they stand; a file counts once."""
    files.write(
        {
            "accounts.d/b.toml": '[accounts.b]\nbot_token_file = "b.token"\nproxy = "p"\n[supervisor]\nmax_held = 7',
            "accounts.d/b.token": TOKEN_2 + "\r\n",
            "accounts.d/more/c.toml": '[proxies.p]\nurl = "http://h:1"\n[supervisor]\nstate_dir = "here"',
            "accounts.d/a.toml": 'include = ["more/c.toml", "../accounts.toml"]',
        }
    )
    config = files.load('include = ["accounts.d/*.toml", "accounts.d/b.toml", "none/*"]\n' + LEAST)
    assert list(config.accounts) == ["bot", "b"]
    assert config.accounts["b"].proxies == ("p",)
    assert config.settings.max_held == 7
    assert config.settings.state_dir == files.folder / "accounts.d/more/here"
    assert config.search_path == (files.folder, files.folder / "accounts.d", files.folder / "accounts.d/more")


def test_include_missing(files: Files) -> None:
    """A plain path that is not there is a problem at its own line; what it might have defined is not missed."""
    text = (
        'include = [\n  "x.toml",\n  "${NO}.toml",\n]\n[accounts.a]\nbot_token = "' + TOKEN + '"\nproxy = "p"'
    )
    assert files.problems(text) == [
        'accounts.toml:2: include: "x.toml" cannot be read: No such file or directory',
        "accounts.toml:3: include: the variable NO is not set",
    ]


def test_include_broken(files: Files) -> None:
    """A syntax error in an included file is reported beside the problems of the others."""
    files.write({"x.toml": "a = 1\nb"})
    (first, second) = files.problems(f'include = ["x.toml"]\n{LEAST}x = 1\n')
    assert first == "accounts.toml:7: accounts.bot.x: unknown"
    assert second.startswith("x.toml:2: it is not TOML: ")


def test_given_twice(files: Files) -> None:
    """An account in two files is a problem that names both places; so is a setting."""
    files.write({"x.toml": f"\n{ACCOUNT}[supervisor]\nmax_held = 1"})
    assert files.problems(f'include = ["x.toml"]\n{LEAST}[supervisor]\nmax_held = 1') == [
        "x.toml:2: accounts.bot: is given already, in accounts.toml:5",
        "x.toml:5: supervisor.max_held: is given already, in accounts.toml:8",
    ]


# variables and secret files


def test_variables(files: Files) -> None:
    """Any string takes variables, a number may be one, and $${ stands for the characters."""
    files.env = {"A": "1102", "B": TOKEN.partition(":")[2], "ID": "77", "T": "1.5"}
    config = files.load(
        '[telegram]\napi_id = "${ID}"\napi_hash = "' + API_HASH + '"\n[supervisor]\ncall_timeout = "${T}"\n'
        '[accounts.x]\nbot_token = "${A}:${B}"\n'
        'client = { device_model = "$${A} ${A} $A", nested = { a = ["${A}"] } }'
    )
    account = config.accounts["x"]
    assert config.telegram.api_id == 77
    assert config.settings.call_timeout == 1.5
    assert account.bot_token is not None
    assert account.bot_token.reveal() == f"1102:{files.env['B']}"
    assert account.client == {"device_model": "${A} 1102 $A", "nested": {"a": ["1102"]}}
    assert {type(value) for value in account.client.values()} == {str, dict}


def test_variables_unset(files: Files) -> None:
    """Every unset variable is a problem at the line of its string; so is a ${ that begins none."""
    problems = files.problems(
        LEAST + 'main = "${A}${B}"\n[accounts.bot.client]\nx = [\n"${C}",\n"${D"]\ny = "${1}"\n'
    )
    unclosed = 'begins no variable\'s name with a "}" after it; write "$${" for the characters'
    assert problems == [
        "accounts.toml:6: accounts.bot.main: the variable A is not set",
        "accounts.toml:6: accounts.bot.main: the variable B is not set",
        "accounts.toml:9: accounts.bot.client.x: the variable C is not set",
        f'accounts.toml:10: accounts.bot.client.x: "${{" {unclosed}',
        f'accounts.toml:11: accounts.bot.client.y: "${{" {unclosed}',
    ]


def test_secret_files(files: Files) -> None:
    """Every secret may be the content of a file, without its line end."""
    files.write(
        {
            "hash": API_HASH,
            "token": TOKEN + "\n",
            "phone": PHONE + "\r\n",
            "pw": " a b \n\n",
            "s": SESSION,
            "url": "http://u:%40@h:1\n",
        }
    )
    config = files.load(
        '[telegram]\napi_id = 1\napi_hash_file = "hash"\n[proxies.p]\nurl_file = "url"\n'
        '[accounts.a]\nbot_token_file = "token"\n[accounts.b]\nphone_file = "phone"\npassword_file = "pw"\n'
        '[accounts.c]\nsession_string_file = "s"\n'
    )
    a, b, c = config.accounts.values()
    revealed = [secret and secret.reveal() for secret in (a.bot_token, b.phone, b.password, c.session_string)]
    assert revealed == [TOKEN, PHONE, " a b ", SESSION]
    password = config.proxies["p"].password
    assert password is not None
    assert password.reveal() == "@"


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("none", "no such file; a relative path starts from FOLDER"),
        ("folder", "is not a file"),
        ("empty", "the file is empty"),
        ("binary", "the file is not UTF-8 text"),
        ("large", "the file is larger than 65536 bytes"),
        ("x" * 300, "the file cannot be read: File name too long"),
        ("", "is empty"),
    ],
)
def test_secret_file_wrong(files: Files, value: str, problem: str) -> None:
    """What is wrong with a secret's file is said without its path: that may be the secret itself."""
    files.write({"folder/x": "", "empty": "\n", "binary": b"\xff", "large": "x" * 70_000})
    found = files.problem(f'{TELEGRAM}[accounts.x]\nphone = "{PHONE}"\npassword_file = "{value}"')
    assert found == f"accounts.toml:6: accounts.x.password_file: {problem}".replace(
        "FOLDER", str(files.folder)
    )


def test_secret_twice(files: Files) -> None:
    """A secret and its file at once are a problem."""
    text = f'{TELEGRAM}[accounts.x]\nphone = "{PHONE}"\npassword = "a"\npassword_file = "b"'
    assert files.problem(text).endswith(
        ":7: accounts.x.password_file: password is given too; give one of them"
    )


# [supervisor]


def test_precedence(files: Files) -> None:
    """The command line comes before the environment, that before the file; an empty variable says nothing."""
    text = (
        LEAST
        + '[supervisor]\nmax_held = 1\nmax_wait = 1\ncall_timeout = 1\ncallbacks = ["a"]\nstate_dir = "x"'
    )
    files.env = {
        "TG_SUPERVISOR_MAX_HELD": "2",
        "TG_SUPERVISOR_MAX_WAIT": "2",
        "TG_SUPERVISOR_CALL_TIMEOUT": "",
        "TG_SUPERVISOR_CALLBACKS": "b.c, d",
        "TG_SUPERVISOR_MISSED_UPDATES": "skip",
        "TG_SUPERVISOR_OTHER": "ignored",
    }
    files.overrides = {"max_held": "3", "state_dir": "y"}
    settings = files.load(text).settings
    assert (settings.max_held, settings.max_wait, settings.call_timeout) == (3, 2.0, 1.0)
    assert (settings.callbacks, settings.missed_updates) == (("b.c", "d"), "skip")
    assert settings.state_dir == files.folder / "y"


def test_elsewhere_wrong(files: Files) -> None:
    """A wrong variable or option is named as such, and takes no line."""
    files.env = {"TG_SUPERVISOR_MAX_HELD": "many", "TG_SUPERVISOR_CALLBACKS": "a b"}
    files.overrides = {"max_wait": "-1", "state_dri": "x", "state_dir": "accounts.toml"}
    assert sorted(files.problems(LEAST)) == [
        (
            "TG_SUPERVISOR_CALLBACKS: supervisor.callbacks: must be a list of modules, "
            "each as it is imported, such as my_package.my_recovery"
        ),
        "TG_SUPERVISOR_MAX_HELD: supervisor.max_held: must be a whole number, not a string",
        "command line: supervisor.max_wait: must be a number of seconds, 0 or more",
        "command line: supervisor.state_dir: is not a directory",
        'command line: supervisor.state_dri: unknown (did you mean "state_dir"?)',
    ]


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("call_timeout = 0", "must be a number of seconds, over 0"),
        ("call_timeout = inf", "must be a number of seconds, over 0 and at most 1e+09"),
        ("call_timeout = nan", "must be a number of seconds, over 0 and at most 1e+09"),
        ("call_timeout = true", "must be a number of seconds, not true or false"),
        ('call_timeout = "60"', "must be a number of seconds, not a string"),
        ("max_held = 1.0", "must be a whole number, not a number"),
        ("max_held = true", "must be a whole number, not true or false"),
        ("max_held = -1", "must be 0 or more"),
        ("start_limit = 0", "must be 1 or more"),
        ("release_rate = 0", "must be a number a second, over 0"),
        ("callbacks = 1", 'must be a list of modules, such as ["my_recovery"], not a whole number'),
        ('callbacks = "a"', 'must be a list of modules, such as ["my_recovery"], not a string'),
        ("state_dir = 1", "must be a string, not a whole number"),
        ("state_dir = ''", "is empty"),
        ("state_dir = 'accounts.toml'", "is not a directory"),
        ('state_dir = "a\\u0000"', "has a NUL character in it"),
        ("missed_updates = 1", "must be one of fetch, skip, not a whole number"),
    ],
)
def test_settings_wrong(files: Files, setting: str, problem: str) -> None:
    """Types and ranges are checked; true is no number, and a number in quotes is none either."""
    key = setting.partition(" ")[0]
    assert files.problem(f"{LEAST}[supervisor]\n{setting}") == f"accounts.toml:7: supervisor.{key}: {problem}"


def test_release_rate(files: Files) -> None:
    """Held calls leave at 30 a second for bots and 10 for users unless the file says otherwise."""
    default = files.load(LEAST).settings
    assert [default.release_rate_of(is_bot=bot) for bot in (True, False)] == [30.0, 10.0]
    assert files.load(LEAST + "[supervisor]\nrelease_rate = 5").settings.release_rate_of(is_bot=True) == 5.0


# [telegram]


def test_server(files: Files) -> None:
    """Another server is given whole; its key may stand in a file or in the string; any api_hash will do for it."""
    files.write({"dc.pub.pem": RSA_PKCS1})
    text = '[telegram]\napi_id = 1\napi_hash = "x"\n[telegram.server]\nhost = "127.0.0.1"\nport = 4430\ndc_id = 2\n'
    for key in ('"dc.pub.pem"', f"'''{RSA_PKCS1}'''"):
        server = files.load(f"{text}public_key = {key}\n{ACCOUNT}").telegram.server
        assert server is not None
        assert (server.host, server.port, server.dc_id) == ("127.0.0.1", 4430, 2)
        assert server.public_numbers[1] == 65537


def test_server_wrong(files: Files) -> None:
    """What is missing or wrong in [telegram.server] is told key by key."""
    files.write({"private.pem": "-----BEGIN RSA PRIVATE KEY-----\n"})
    text = f"{LEAST}[telegram.server]\nport = 70000\npublic_key = 'private.pem'\nhots = 'x'"
    assert files.problems(text) == [
        "accounts.toml:6: telegram.server.host: is missing",
        "accounts.toml:6: telegram.server.dc_id: is missing",
        "accounts.toml:7: telegram.server.port: must be a whole number from 1 to 65535",
        (
            "accounts.toml:8: telegram.server.public_key: is no RSA public key: "
            "it holds a private key; the public one is wanted"
        ),
        'accounts.toml:9: telegram.server.hots: unknown (did you mean "host"?)',
    ]
    assert files.problem(LEAST.replace("[acc", "server = 5\n[acc")).endswith(
        "telegram.server: must be a table, not a whole number"
    )


def test_api_hash(files: Files) -> None:
    """Half an api_hash is found before Telegram finds it."""
    assert files.problem(LEAST.replace(API_HASH, API_HASH[:20])) == (
        "accounts.toml:3: telegram.api_hash: must be the 32 hexadecimal digits that my.telegram.org shows"
    )


# [recovery] and [classify]


def test_policies(files: Files) -> None:
    """A key of [recovery.KIND] takes the place of that one default."""
    config = files.load(
        LEAST + "[recovery.connection]\nmax_retries = 9\njitter = 0\n[recovery.auth]\naction = 'fail'"
    )
    assert config.policies[Kind.CONNECTION] == Policy(Action.RECONNECT, 9, 1.0, 300.0, 0.0)
    assert config.policies[Kind.AUTH] == Policy(Action.FAIL, 2, 1.0)
    assert config.policies[Kind.PROXY] == DEFAULT_POLICIES[Kind.PROXY]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[recovery.migrate]", "recovery.migrate: unknown"),
        ("[recovery.auth]\nretries = 1", 'recovery.auth.retries: unknown (did you mean "max_retries"?)'),
        (
            "[recovery.auth]\njitter = 2",
            "recovery.auth.jitter: must be a share of the delay, 0 or more and at most 1",
        ),
        ("[recovery.auth]\nbase_delay = 301", "recovery.auth.base_delay: base_delay is over max_delay"),
        (
            "[recovery.rate_limit]\nmax_delay = 2",
            "recovery.rate_limit.max_delay: base_delay is over max_delay",
        ),
        (
            "[recovery.flood_wait]\naction = 'retry'",
            "recovery.flood_wait.action: must be wait or fail: a wait that Telegram demands is honoured",
        ),
        ("[classify]\nX = 1", "classify.X: must be a table, not a whole number"),
        ("[classify.X]\nkind = 'auth'\naction = 'fail'", "classify.X.scope: is missing"),
        (
            "[classify.X]\nkind = 'auth'\naction = 'fail'\nscope = 'cal'",
            (
                "classify.X.scope: must be one of call, session, account, path, fleet, "
                'not "cal" (did you mean "call"?)'
            ),
        ),
        (
            "[classify.FLOOD_WAIT_35]\nkind = 'flood_wait'\naction = 'raise'\nscope = 'call'",
            "classify.FLOOD_WAIT_35: the number is written X: FLOOD_WAIT_X",
        ),
        (
            "[classify.FLOOD_WAIT_X]\nkind = 'temporary'\naction = 'retry'\nscope = 'call'",
            (
                "classify.FLOOD_WAIT_X: stays a flood_wait, with wait, raise or fail: "
                "a wait that Telegram demands is honoured"
            ),
        ),
    ],
)
def test_recovery_wrong(files: Files, text: str, problem: str) -> None:
    """Recovery can be tuned, but no wait that Telegram demands can be configured away."""
    assert files.problem(LEAST + text).partition(": ")[2] == problem


def test_classify(files: Files) -> None:
    """A row of [classify] is the operator's own judgement."""
    config = files.load(
        LEAST + '[classify]\nSOME_ID = { kind = "temporary", action = "raise", scope = "call" }'
    )
    assert config.overrides == {"SOME_ID": Override(Kind.TEMPORARY, Remedy.RAISE, Scope.CALL)}


# [proxies]


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("socks5://h.example:1080", ("socks5", "h.example", 1080, None, None)),
        ("SOCKS5://u:p@1.2.3.4:1/", ("socks5", "1.2.3.4", 1, "u", "p")),
        ("http://u%40x:p%3A%2F@h:1", ("http", "h", 1, "u@x", "p:/")),
        ("http://u:a@b/c#d:e@h:1", ("http", "h", 1, "u", "a@b/c#d:e")),
        ("socks4://id@[2001:db8::1]:1", ("socks4", "2001:db8::1", 1, "id", None)),
        ("socks5://u:${PW}@${HOST}:${PORT}", ("socks5", "::1", 99, "u", "p%41@/:")),
        ("socks5://${BOTH}@h:1", ("socks5", "h", 1, "u", "p")),
        ("${WHOLE}", ("http", "h", 7, "u", "A")),
    ],
)
def test_proxy_url(files: Files, url: str, parts: tuple[object, ...]) -> None:
    """Credentials are percent-decoded as written; those from a variable are taken as they are."""
    files.env = {"PW": "p%41@/:", "HOST": "[::1]", "PORT": "99", "BOTH": "u:p", "WHOLE": "http://u:%41@h:7"}
    proxy = files.load(f"{LEAST}[proxies.p]\nurl = '{url}'").proxies["p"]
    password = proxy.password.reveal() if proxy.password else None
    assert (proxy.scheme, proxy.host, proxy.port, proxy.username, password) == parts


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("url = 'h:1'", "url: must be scheme://host:port or scheme://user:password@host:port"),
        ("url = 'socks5://h'", "url: must be scheme://host:port or scheme://user:password@host:port"),
        ("url = 'socks5://h:1/x'", "url: must be scheme://host:port or scheme://user:password@host:port"),
        ("url = 'https://h:1'", 'url: its scheme must be socks5, socks4 or http (did you mean "http"?)'),
        ("url = 'http://h:0'", "url: its port must be a number from 1 to 65535"),
        ("url = 'http://h:70000'", "url: its port must be a number from 1 to 65535"),
        ("url = 'http://h:²'", "url: its port must be a number from 1 to 65535"),
        ("url = 'http://a%20b:1'", "url: its host is no name or address"),
        ("url = 'socks4://u:p@h:1'", "url: socks4 knows no password; use socks5, or only a user"),
        ("pool = 'eu'", "url: is missing"),
        ("url = 'http://h:1'\npool = 'p'", "pool: a proxy has this name; a pool needs one of its own"),
        ("url = 'http://h:1'\npool = 'direct'", 'pool: "direct" means no proxy; choose another name'),
        ("url = 'http://h:1'\npool = 'a b'", "pool: must be letters, digits, '.', '_' and '-', 64 at most"),
        ("url = 'http://h:1'\nuser = 'x'", "user: unknown"),
    ],
)
def test_proxy_wrong(files: Files, text: str, problem: str) -> None:
    """What is wrong with a proxy is said without its url, and its accounts are not told they miss it."""
    found = files.problem(f"{LEAST}proxy = 'p'\n[proxies.p]\n{text}")
    assert found.partition(": ")[2] == f"proxies.p.{problem}"


def test_proxy_names(files: Files) -> None:
    """`direct` is no name for a proxy, and a name has no spaces."""
    text = "[proxies.direct]\nurl = 'http://h:1'\n[proxies.'a b']\nurl = 'http://h:1'"
    assert files.problems(LEAST + text) == [
        'accounts.toml:6: proxies.direct: "direct" means no proxy; choose another name',
        "accounts.toml:8: proxies.\"a b\": its name must be letters, digits, '.', '_' and '-', 64 at most",
    ]


# [accounts]


@pytest.mark.parametrize(
    ("value", "proxies"),
    [
        ('"eu"', ("de1", "nl3")),
        ('"us1"', ("us1",)),
        ('["us1", "eu", "us1", "de1"]', ("us1", "de1", "nl3")),
        ('["nl3", "eu"]', ("nl3", "de1")),
        ('"direct"', ()),
        ('["direct"]', ()),
        ('"${P}"', ("us1",)),
    ],
)
def test_account_proxies(files: Files, value: str, proxies: tuple[str, ...]) -> None:
    """A pool stands for its proxies, in the order of the file, each once; `direct` undoes the default."""
    files.env = {"P": "us1"}
    config = files.load(f'{PROXIES}[defaults]\nproxy = "us1"\n{LEAST}proxy = {value}')
    assert config.accounts["bot"].proxies == proxies
    assert config.pools == {"eu": ("de1", "nl3")}


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("[]", 'is an empty list; write "direct" for no proxy'),
        ('["us1", "direct"]', '"direct" stands alone: no account falls back to it by itself'),
        ("1", "must be a string or a list of strings, not a whole number"),
        ("[1]", "must be a string, not a whole number"),
        ('"us2"', 'no proxy or pool is called "us2" (did you mean "us1"?)'),
        ('"${P}"', 'no proxy or pool is called "…"'),
        ('"socks5://u:pw@h:1"', 'no proxy or pool is called "…"'),
    ],
)
def test_account_proxies_wrong(files: Files, value: str, problem: str) -> None:
    """A proxy that is nowhere defined is a problem; so is a list that could mean direct by mistake."""
    files.env = {"P": "secret"}
    assert (
        files.problem(f"{PROXIES}{LEAST}proxy = {value}")
        == f"accounts.toml:15: accounts.bot.proxy: {problem}"
    )


def test_defaults(files: Files) -> None:
    """Defaults are under every account's own keys; `client` is merged key by key."""
    files.write({"bots/a/x.py": "", "bots/b/x.py": ""})
    config = files.load(
        LEAST + "plugins = 'bots/b'\nclient = { workers = 8, app_version = '1' }\n"
        f"[accounts.user]\nphone = '{PHONE}'\n"
        "[defaults]\nplugins = 'bots/a'\nmain = 'm:f'\npassword = 'pw'\nclient = { workers = 4, device_model = 'PC' }"
    )
    bot, user = config.accounts.values()
    assert (bot.plugins, bot.main, bot.password) == ("bots/b", "m:f", None)
    assert bot.client == {"workers": 8, "device_model": "PC", "app_version": "1"}
    assert (user.plugins, user.client) == ("bots/a", {"workers": 4, "device_model": "PC"})
    assert user.password is not None


def test_defaults_wrong(files: Files) -> None:
    """A mistake in [defaults] is reported once, in its own line; who an account is has no default."""
    text = f"{LEAST}[accounts.b]\nphone = '{PHONE}'\n[defaults]\nproxy = 'x'\nbot_token = '{TOKEN_2}'\nphone_file = 'x'"
    assert files.problems(text) == [
        'accounts.toml:9: defaults.proxy: no proxy or pool is called "x"',
        "accounts.toml:10: defaults.bot_token: belongs to one account, so it has no default",
        "accounts.toml:11: defaults.phone_file: belongs to one account, so it has no default",
    ]


def test_identity(files: Files) -> None:
    """Sessions are kept by bot id or phone; an existing session may be taken over beside either."""
    session_file(files.folder / "a.session")
    config = files.load(
        f"{LEAST}session_string = '{SESSION}'\n[accounts.user]\nphone = '49 (151) 123-45678'\nsession_file = 'a.session'\n"
    )
    bot, user = config.accounts.values()
    assert (bot.identity, bot.is_bot) == ("bot:110201543", True)
    assert (user.identity, user.is_bot) == ("phone:+4915112345678", False)
    assert user.session_file == files.folder / "a.session"
    only = files.load(f"{TELEGRAM}[accounts.x]\nsession_string = '{SESSION}'").accounts["x"]
    assert (only.identity, only.is_bot) == ("session:x", None)


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ("", ": needs one of bot_token, phone, session_file and session_string"),
        (f"bot_token = '{TOKEN}'\nphone = '{PHONE}'", ": has both bot_token and phone; give one of them"),
        (
            f"session_string = '{SESSION}'\nsession_file = 'a.session'",
            ": has both session_string and session_file; give one of them",
        ),
        (f"bot_token = '{TOKEN}'\npassword = 'x'", ".password: a bot has no password"),
        (
            f"bot_token = '{TOKEN[:20]}'",
            ".bot_token: is not a bot's token, which is digits, a colon and 35 letters, digits, '_' or '-'",
        ),
        (f"bot_tokn = '{TOKEN}'\nphone='{PHONE}'", '.bot_tokn: unknown (did you mean "bot_token"?)'),
        ("phone = '0151 1234567'", ".phone: must be a number in international form, as +4915112345678"),
        (
            "phone = 4915112345678",
            ".phone: must be a number in international form, as +4915112345678 in quotes, not a whole number",
        ),
        (
            "session_string = 'abc'",
            ".session_string: is not a session string of Pyrogram's, or not the whole of one",
        ),
        ("session_file = 'b'", ".session_file: no such file; a relative path starts from FOLDER"),
        ("session_file = 'a'", '.session_file: no such file; there is one with ".session" at its end'),
        ("session_file = 'empty'", ".session_file: is not a session file of Pyrogram's (an SQLite database)"),
        (
            f"phone = '{PHONE}'\nmain = 'mybot'",
            '.main: must name a module and a function in it, such as "mybot:main"',
        ),
        (
            f"phone = '{PHONE}'\nmain = 'my-bot:x'",
            '.main: must name a module and a function in it, such as "mybot:main"',
        ),
        (
            f"phone = '{PHONE}'\nplugins = 'bots/none'",
            ".plugins: no such folder; a relative path starts from FOLDER",
        ),
        (f"phone = '{PHONE}'\nplugins = 'bots/one'", ".plugins: is a module; name the folder it is in"),
        (f"phone = '{PHONE}'\nplugins = 'bots/empty'", ".plugins: the folder has no Python files"),
        (
            f"phone = '{PHONE}'\nplugins = '../bots'",
            '.plugins: must be a folder as it is imported from the configuration\'s, such as "bots/support"',
        ),
        (
            f"phone = '{PHONE}'\nclient = 1",
            ".client: must be a table of arguments for pyrogram.Client, not a whole number",
        ),
        (f"phone = '{PHONE}'\nclient.api_id = 1", ".client.api_id: is not passed on: set it in [telegram]"),
        (
            f"phone = '{PHONE}'\nclient.divice_model = 1",
            '.client.divice_model: pyrogram.Client knows no such argument (did you mean "device_model"?)',
        ),
        (f"phone = '{PHONE}'\nclient.'a b' = 1", '.client."a b": pyrogram.Client knows no such argument'),
    ],
)
def test_account_wrong(files: Files, keys: str, problem: str) -> None:
    """What is wrong with an account is said so that its owner can set it right."""
    session_file(files.folder / "a.session")
    files.write({"empty": "", "bots/one.py": "", "bots/empty/x.txt": ""})
    found = files.problem(f"{TELEGRAM}[accounts.x]\n{keys}")
    assert found.partition(": ")[2] == f"accounts.x{problem}".replace("FOLDER", str(files.folder))


def test_newer_client_arguments(files: Files) -> None:
    """An argument of a client library newer than this program is passed on."""
    assert files.load(LEAST + "client.fold_the_laundry = true").accounts["bot"].client == {
        "fold_the_laundry": True
    }


def test_plugins_as_imported(files: Files) -> None:
    """Plugins are named with slashes or dots, and found from any configuration file's directory."""
    files.write(
        {
            "bots/support/deep/x.py": "",
            "d/x.toml": f"[accounts.b]\nphone = '{PHONE}'\nplugins = 'bots.support'",
        }
    )
    config = files.load(f"include = ['d/x.toml']\n{LEAST}plugins = 'bots/support/'")
    assert [account.plugins for account in config.accounts.values()] == ["bots/support", "bots.support"]


def test_twins(files: Files) -> None:
    """Two accounts that are one bot, phone or session are a problem naming both places, even by different tokens."""
    session_file(files.folder / "a.session")
    files.write({"x.toml": "[accounts.b]\nbot_token_file = 'token'\n", "token": TOKEN[:-5] + "other"})
    text = (
        f"include = ['x.toml']\n{LEAST}"
        f"[accounts.c]\nphone = '{PHONE}'\n[accounts.d]\nphone = '{PHONE[1:]}'\n"
        f"[accounts.e]\nsession_file = 'a.session'\n[accounts.f]\nsession_file = './a.session'\n"
        f"[accounts.g]\nsession_string = '{SESSION}'\n[accounts.h]\nsession_string = '{SESSION}'\n"
    )
    assert files.problems(text) == [
        "accounts.toml:10: accounts.d.phone: is the same phone as that of accounts.c (accounts.toml:8)",
        "accounts.toml:14: accounts.f.session_file: is the same session as that of accounts.e (accounts.toml:12)",
        "accounts.toml:18: accounts.h.session_string: is the same session as that of accounts.g (accounts.toml:16)",
        "x.toml:2: accounts.b.bot_token_file: is the same bot as that of accounts.bot (accounts.toml:6)",
    ]


def test_account_names(files: Files) -> None:
    """An account's name has no spaces, being typed into commands; dots are fine."""
    assert list(files.load(LEAST.replace("bot]", "'a.b']")).accounts) == ["a.b"]
    assert files.problem(LEAST.replace("bot]", "'a b']")) == (
        "accounts.toml:4: accounts.\"a b\": its name must be letters, digits, '.', '_' and '-', 64 at most"
    )
