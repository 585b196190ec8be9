from dataclasses import replace
from pathlib import Path

from supervisor.config.diff import diff, in_force
from supervisor.config.model import Account, Config, Proxy, Secret, Settings, Telegram
from supervisor.core.failure import Kind, Override, Remedy, Scope

BOT = Account("bot", bot_token=Secret("1:a"), proxies=("p",))
USER = Account("user", phone=Secret("+4915112345678"))
CONFIG = Config(
    path=Path("/x/accounts.toml"),
    telegram=Telegram(1, Secret("h")),
    settings=Settings(Path("/x/state")),
    proxies={"p": Proxy("p", "socks5", "h", 1)},
    accounts={"bot": BOT, "user": USER},
)


def test_same() -> None:
    """A configuration read again differs in nothing."""
    result = diff(CONFIG, replace(CONFIG, accounts={"bot": replace(BOT), "user": replace(USER)}))
    assert not result
    assert result.unchanged == ("bot", "user")


def test_accounts() -> None:
    """Accounts are added, removed and changed by name, and what changed is told."""
    changed = replace(BOT, plugins="bots", client={"workers": 4}, bot_token=Secret("1:b"))
    result = diff(CONFIG, replace(CONFIG, accounts={"bot": changed, "new": Account("new")}))
    assert (result.added, result.removed, result.unchanged) == (("new",), ("user",), ())
    assert result.changed == {"bot": {"plugins", "client", "bot_token"}}
    assert result.renamed == {}


def test_renamed() -> None:
    """An account that continues another's session by a new name is known as such."""
    result = diff(CONFIG, replace(CONFIG, accounts={"bot": BOT, "boss": replace(USER, name="boss")}))
    assert (result.added, result.removed, result.renamed) == (("boss",), ("user",), {"boss": "user"})


def test_proxy() -> None:
    """A proxy's new url changes the accounts that use it, and no other."""
    result = diff(CONFIG, replace(CONFIG, proxies={"p": Proxy("p", "socks5", "h", 2)}))
    assert result.changed == {"bot": {"proxies"}}
    assert result.unchanged == ("user",)


def test_telegram() -> None:
    """Other credentials, or another server, change every account."""
    result = diff(CONFIG, replace(CONFIG, telegram=Telegram(2, Secret("h"))))
    assert result.changed == {"bot": {"telegram"}, "user": {"telegram"}}


def test_settings_and_policies() -> None:
    """Settings and judgements are compared apart from the accounts."""
    result = diff(
        CONFIG,
        replace(
            CONFIG,
            settings=replace(CONFIG.settings, max_held=1),
            overrides={"X": Override(Kind.AUTH, Remedy.FAIL, Scope.ACCOUNT)},
        ),
    )
    assert result
    assert result.settings == {"max_held"}
    assert result.policies
    assert not result.changed


def test_what_is_everybodys_affair_is_taken_over_by_all() -> None:
    """Policies and most settings are; budgets concern no account by itself; what needs a restart is told, and kept."""
    result = diff(CONFIG, replace(CONFIG, policies={}))
    assert (result.adapted, result.replaced) == (("bot", "user"), ())
    other = replace(CONFIG, settings=replace(CONFIG.settings, connect_budget=1.0, callbacks=("x",)))
    result = diff(CONFIG, other)
    assert (result.adapted, result.needs_restart) == ((), ("callbacks",))
    assert in_force(CONFIG, other).settings == replace(CONFIG.settings, connect_budget=1.0)
    slow = replace(CONFIG, settings=replace(CONFIG.settings, call_timeout=1.0))
    assert diff(CONFIG, slow).adapted == ("bot", "user")


def test_who_is_replaced() -> None:
    """Whose credentials, code or client have changed; another proxy or two-factor password is taken over as it runs."""
    moved = replace(BOT, proxies=())
    other = replace(CONFIG, accounts={"bot": moved, "user": replace(USER, password=Secret("x"))})
    assert (diff(CONFIG, other).adapted, diff(CONFIG, other).replaced) == (("bot", "user"), ())
    other = replace(
        other, accounts={"bot": replace(moved, main="a:b"), "user": replace(USER, client={"w": 1})}
    )
    assert (diff(CONFIG, other).adapted, diff(CONFIG, other).replaced) == ((), ("bot", "user"))
