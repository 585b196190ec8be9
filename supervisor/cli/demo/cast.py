"""The accounts of the demo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Role:
    """One account: a user, who has a phone, or a bot. `proxy` is the pool that it goes through."""

    name: str
    phone: str | None = None
    proxy: str | None = None


POOL = "eu"
PROXIES = ("de1", "nl3")  # of that pool
CAST = (
    Role("support-bot"),
    Role("news-bot"),
    Role("orders-bot"),
    Role("shop-bot", proxy=POOL),
    Role("promo-bot", proxy=POOL),
    Role("sales-user", phone="+4915112345678"),
)
NAMES = tuple(role.name for role in CAST)


def whose(names: Sequence[str]) -> str:
    """Accounts in a few words."""
    others = [name for name in NAMES if name not in names]
    if not others:
        return f"all {len(NAMES)}"
    if len(others) < len(NAMES) / 2:
        return f"all but {', '.join(others)}"
    names = list(dict.fromkeys(names))
    return ", ".join(names) if len(names) < 3 else f"{len(names)} accounts"
