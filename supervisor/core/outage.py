"""Trouble that accounts share: when it is not theirs but their path's, or everybody's.

One account that fails on a healthy path has an incident of its own. Many on one path within seconds share the path's;
where all paths are down together it is the network's or Telegram's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from supervisor.core.failure import Scope

# So many accounts are many; of a path that answers when it is asked, at least this share of its accounts besides.
MANY, SHARE = 3, 0.1
# A path is down where so many of its accounts fail, whatever it answers.
MOST = 0.5
# How many seconds apart failures may be and still be one trouble.
TOGETHER = 5.0


@dataclass(frozen=True, slots=True)
class Sight:
    """What is seen of one path: the accounts on it, how many of them failed lately, whether it is known to be broken."""

    accounts: int
    failing: int
    broken: bool

    @property
    def is_common(self) -> bool:
        """Whether those that fail share the trouble."""
        return self.failing >= MANY and (self.broken or self.failing >= SHARE * self.accounts)

    @property
    def is_down(self) -> bool:
        """Whether there is hardly anybody on it who is well."""
        return self.broken or self.failing >= MOST * self.accounts


def shared(sights: Mapping[str, Sight]) -> dict[str, Scope]:
    """Which paths' failures are not their accounts' own, and how far the trouble reaches.

    Args:
        sights: every path that has accounts, or has had them until they failed on it.
    """
    failing = [path for path, sight in sights.items() if sight.failing]
    if sum(sights[path].failing for path in failing) >= MANY and all(s.is_down for s in sights.values()):
        return dict.fromkeys(failing, Scope.FLEET)
    return {path: Scope.PATH for path in failing if sights[path].is_common}
