"""What differs is done, and nothing else, with stand-ins for the accounts and for what makes them. Virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from supervisor import reload
from supervisor.account import Account
from supervisor.config.footprint import Footprint
from supervisor.config.model import Account as AccountConfig
from supervisor.config.model import Config, Proxy, Secret, Settings, Telegram
from supervisor.core.events import Stop
from supervisor.errors import ConfigError
from supervisor.pool import Pool
from supervisor.reload import Reloaded, Reloading
from tests.unit.fakes import virtual
from tests.unit.test_pool import Member

PROXY = Proxy("de1", "socks5", "h", 1)
A, B, C = (AccountConfig(name, bot_token=Secret(f"{n}:x")) for n, name in enumerate("abc"))


class Desk:
    """A running pool, the file, and what its parts were told, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *accounts: AccountConfig, **settings: Any) -> None:
        self.file: Config | ConfigError = self.config(*accounts, **settings)
        self.told: list[Any] = []
        self.deaf: set[str] = set()
        self.members: list[Member] = []
        self.time = 100.0
        assert isinstance(self.file, Config)
        self.pool = Pool(self._build, self.file.accounts)
        self.reloading = Reloading(
            self.file,
            pool=self.pool,
            assembly=cast("Any", self),
            logins=cast("Any", "logins"),
            store=cast("Any", self),
            clock=cast("Any", self),
        )
        monkeypatch.setattr(reload, "_read", self._read)

    @staticmethod
    def config(*accounts: AccountConfig, **more: Any) -> Config:
        return Config(
            path=Path("/x/accounts.toml"),
            telegram=Telegram(1, Secret("h")),
            settings=Settings(Path("/x/state"), **more),
            proxies={"de1": PROXY},
            accounts={account.name: account for account in accounts},
        )

    async def _read(self, _path: Path, env: Mapping[str, str], _footprint: Footprint) -> Config:
        assert env == {"TOKEN": "t"}
        if isinstance(self.file, ConfigError):
            raise self.file
        return self.file

    def _build(self, name: str) -> Account:
        self.told.append(f"build {name}")
        deaf = 1000.0 if name in self.deaf else 0.0
        member = Member(name, slow=deaf, deaf=deaf)
        self.members.append(member)
        return cast("Account", member)

    async def reload(self) -> Reloaded:
        self.told.clear()
        return await self.reloading.reload({"TOKEN": "t"})

    # What else it works with.

    def now(self) -> float:
        return self.time

    def reconfigure(self, config: Config, ended: Iterable[str]) -> None:
        self.told.append(f"ended {', '.join(ended) or 'none'}")

    def adapted(self) -> None:
        assert not [name for name in self.told if name == "adapted"]

    def adapt(self, name: str) -> None:
        self.told.append(f"adapt {name}")

    def reconfigure_logins(self, logins: Any, renamed: Mapping[str, str]) -> None:
        assert logins == "logins"

    async def rename(self, name: str) -> None:
        self.told.append(f"rename {name}")

    async def forget_account(self, name: str) -> None:
        self.told.append(f"forget {name}")


async def running(desk: Desk) -> asyncio.Task[None]:
    task = asyncio.create_task(desk.pool.run())
    await asyncio.sleep(1.0)
    return task


@virtual
async def test_only_what_differs_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever goes or is replaced has stopped before anybody starts; the untouched one is told nothing."""
    desk = Desk(monkeypatch, A, B, C)
    task = await running(desk)
    untouched = desk.pool.accounts["a"]
    new = AccountConfig("d", bot_token=Secret("9:x"))
    desk.file = desk.config(replace(B, main="b:main"), new, A)
    done = await desk.reload()
    assert desk.told == ["ended c, b", "build b", "build d", "forget c"]
    assert done == Reloaded(added=("d",), removed=("c",), replaced=("b",), untouched=1)
    assert str(done) == "1 added, 1 removed, 1 replaced, 1 untouched"
    assert list(desk.pool.accounts) == ["b", "d", "a"]
    assert desk.pool.accounts["a"] is untouched
    assert desk.members[0].told == []
    await desk.pool.stop()
    await task
    assert [member.told for member in desk.members] == [[Stop()]] * 5


@virtual
async def test_a_renamed_account_goes_on_under_its_new_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is neither removed nor added: what is known of its session is kept, and the old name forgotten."""
    desk = Desk(monkeypatch, A, B)
    task = await running(desk)
    desk.file = desk.config(A, replace(B, name="boss"))
    done = await desk.reload()
    assert desk.told == ["ended b", "build boss", "forget b", "rename boss"]
    assert done == Reloaded(renamed={"boss": "b"}, untouched=1)
    await desk.pool.stop()
    await task


@virtual
async def test_settings_are_taken_over_as_far_as_they_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """All take over what is everybody's affair; budgets touch none; some wait for the next start, and are kept so."""
    desk = Desk(monkeypatch, A)
    task = await running(desk)
    desk.file = desk.config(A, connect_budget=1.0)
    assert await desk.reload() == Reloaded(untouched=1)
    desk.file = desk.config(A, connect_budget=1.0, retention_days=3, callbacks=("x",))
    desk.file = replace(desk.file, settings=replace(desk.file.settings, state_dir=Path("/y")))
    for _ in range(2):  # it is said again: it is still so
        done = await desk.reload()
        assert done == Reloaded(untouched=1, needs_restart=("state_dir", "callbacks", "retention_days"))
    assert desk.reloading.config.settings.state_dir == Path("/x/state")
    desk.file = desk.config(A, connect_budget=1.0, call_timeout=5.0)
    assert await desk.reload() == Reloaded(adapted=("a",))
    assert desk.told == ["ended none", "adapt a"]
    await desk.pool.stop()
    await task


@virtual
async def test_only_whose_path_has_changed_connects_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its path is no longer among its own, or leads elsewhere; another proxy of its pool is no reason, nor a callback's."""
    accounts = [replace(one, proxies=("de1",)) for one in (A, B)]
    desk = Desk(monkeypatch, *accounts, C)
    task = await running(desk)
    desk.members[0].path = desk.members[1].path = "de1"
    pool = {"de1": PROXY, "nl3": replace(PROXY, name="nl3", port=2)}
    for number, (config, moved) in enumerate(
        [
            (desk.config(replace(A, proxies=("de1", "nl3")), accounts[1], C), []),
            (desk.config(replace(A, proxies=("nl3",)), accounts[1], C), ["a"]),
            (desk.config(replace(A, proxies=("nl3",)), accounts[1], replace(C, proxies=("de1",))), ["c"]),
            (desk.config(replace(A, proxies=("nl3",)), replace(B), replace(C, proxies=("de1",))), ["b"]),
        ]
    ):
        desk.file = replace(config, proxies=pool)
        done = await desk.reload()
        assert [name for name in done.adapted if f"adapt {name}" in desk.told] == list(done.adapted)
        assert [member.name for member in desk.members if member.moves] == moved, number
        for member in desk.members:
            member.path = (
                {"a": "nl3", "b": "direct", "c": "de1"}[member.name] if member.moves else member.path
            )
            member.moves = 0
    desk.members[0].path = "198.51.100.7:1080"  # a recovery callback's
    assert isinstance(desk.file, Config)
    desk.file = replace(desk.file, proxies=pool | {"de1": replace(PROXY, port=3)})
    await desk.reload()
    assert [member.name for member in desk.members if member.moves] == ["c"]
    await desk.pool.stop()
    await task


@virtual
async def test_a_broken_file_changes_nothing_and_is_told_until_a_good_one_is_read(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Raised, logged line by line, and kept; the time of the configuration in force is that of the last good one."""
    desk = Desk(monkeypatch, A)
    task = await running(desk)
    desk.time = 200.0
    desk.file = ConfigError(["one", "two"])
    with pytest.raises(ConfigError):
        await desk.reload()
    assert desk.told == []
    shown = {"path": "/x/accounts.toml", "loaded_at": "1970-01-01T00:01:40.000Z", "error": ["one", "two"]}
    assert desk.reloading.json() == shown
    assert [record.getMessage() for record in caplog.records][1:] == ["one", "two"]
    desk.file = desk.config(A)
    await desk.reload()
    assert desk.reloading.json() == {**shown, "loaded_at": "1970-01-01T00:03:20.000Z", "error": None}
    await desk.pool.stop()
    await task


@virtual
async def test_nobody_takes_the_place_of_one_that_will_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor continues its session by another name: until it has ended and the file is read again."""
    desk = Desk(monkeypatch, A, B)
    desk.deaf.add("b")
    desk.pool = desk.reloading._pool = Pool(desk._build, ("a", "b"))
    task = await running(desk)
    desk.file = desk.config(A, replace(B, name="boss"))
    done = await desk.reload()
    assert desk.told == ["ended none", "forget b"]
    assert done == Reloaded(untouched=1, stuck=("b",))
    assert list(desk.pool.accounts) == ["a", "b"]
    await asyncio.sleep(2000.0)  # it has ended by now
    assert await desk.reload() == Reloaded(added=("boss",), untouched=1)
    assert desk.told == ["ended b", "build boss"]
    assert list(desk.pool.accounts) == ["a", "boss"]
    await desk.pool.stop()
    await task


@virtual
async def test_whoever_is_built_while_all_stops_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reload that meets the daemon's end leaves nothing running."""
    desk = Desk(monkeypatch, A)
    task = await running(desk)
    await desk.pool.stop()
    await task
    await desk.pool.put_in(["b"], ["a", "b"])
    assert list(desk.pool._tasks) == ["a"]
