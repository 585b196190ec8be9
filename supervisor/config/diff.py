"""What a reload changes, account by account."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from supervisor.config.model import Account, Config, Settings

# What a running daemon cannot change: told, and left as it was until it is started again.
NEEDS_RESTART = frozenset({"state_dir", "callbacks", "retention_days"})
# What concerns no account by itself. Every other setting is each account's, which takes it over as it runs.
AT_ONCE = frozenset({"connect_budget", "connect_budget_total", "probe_budget", "breaker_failures", "watch"})
# What an account takes over as it runs: where anything else of it has changed, another takes its place.
IN_PLACE = frozenset({"proxies", "password"})

_PARTS = tuple(field.name for field in fields(Account) if field.name != "name")
_SETTINGS = tuple(field.name for field in fields(Settings))


@dataclass(frozen=True, slots=True)
class Diff:
    """The accounts of two configurations, each name in one of the first four.

    Args:
        added: new names.
        removed: names that are gone.
        changed: names of which something differs, and what: attributes of `Account` ("proxies" also where only a
            proxy's url differs), and "telegram" for the credentials or the server.
        unchanged: names of which nothing differs.
        renamed: of the added ones, those that continue an account by another name: new name to old. The same session,
            so the old one must be stopped first.
        settings: keys of [supervisor] that differ.
        policies: whether [recovery] or [classify] differ.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: Mapping[str, frozenset[str]]
    unchanged: tuple[str, ...]
    renamed: Mapping[str, str]
    settings: frozenset[str]
    policies: bool

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed or self.settings or self.policies)

    @property
    def replaced(self) -> tuple[str, ...]:
        """The accounts whose credentials, code or client have changed: another takes their places."""
        return tuple(name for name, parts in self.changed.items() if parts - IN_PLACE)

    @property
    def adapted(self) -> tuple[str, ...]:
        """The accounts that take over what has changed as they run: all that stay, where that is each one's affair."""
        everywhere = self.policies or self.settings - NEEDS_RESTART - AT_ONCE
        own = (name for name, parts in self.changed.items() if not parts - IN_PLACE)
        return (*own, *(self.unchanged if everywhere else ()))

    @property
    def needs_restart(self) -> tuple[str, ...]:
        """The keys of [supervisor] that take effect with the daemon's next start."""
        return tuple(key for key in _SETTINGS if key in self.settings & NEEDS_RESTART)


def in_force(old: Config, new: Config) -> Config:
    """The new configuration, without what a running daemon cannot change."""
    kept = {key: getattr(old.settings, key) for key in NEEDS_RESTART}
    return replace(new, settings=replace(new.settings, **kept))


def diff(old: Config, new: Config) -> Diff:
    """Compare two configurations."""
    both = [name for name in new.accounts if name in old.accounts]
    parts = {name: _changes(old, new, name) for name in both}
    added = tuple(name for name in new.accounts if name not in old.accounts)
    removed = tuple(name for name in old.accounts if name not in new.accounts)
    leaving = {old.accounts[name].identity: name for name in removed}
    arriving = {name: new.accounts[name].identity for name in added}
    return Diff(
        added=added,
        removed=removed,
        changed={name: changes for name, changes in parts.items() if changes},
        unchanged=tuple(name for name, changes in parts.items() if not changes),
        renamed={name: leaving[identity] for name, identity in arriving.items() if identity in leaving},
        settings=frozenset(
            key for key in _SETTINGS if getattr(old.settings, key) != getattr(new.settings, key)
        ),
        policies=(old.policies, old.overrides) != (new.policies, new.overrides),
    )


def _changes(old: Config, new: Config, name: str) -> frozenset[str]:
    before, after = old.accounts[name], new.accounts[name]
    parts = {part for part in _PARTS if getattr(before, part) != getattr(after, part)}
    if [old.proxies.get(proxy) for proxy in before.proxies] != [
        new.proxies.get(proxy) for proxy in after.proxies
    ]:
        parts.add("proxies")
    if old.telegram != new.telegram:
        parts.add("telegram")
    return frozenset(parts)
