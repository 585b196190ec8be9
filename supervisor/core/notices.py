"""Which messages one sink is sent: grouped, limited in number, and one more when it is over.

What begins within `window` seconds is one message, and nothing that is over by then is told at all. A group that has
been told is told again at once when it gets worse, and after a while (`quiet`) when it has grown; when its last
trouble is over, that it is. Of all these at most `limit` leave within `per` seconds, some of them kept for what is
grave; the rest waits, and goes out as one summary. Times are monotonic seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from supervisor.core.codes import Code
from supervisor.core.failure import Level
from supervisor.core.troubles import Began, Ended, Happened, News

LOUDNESS: Final[Mapping[Level, int]] = MappingProxyType({level: n for n, level in enumerate(Level)})

_NAMED = 5  # accounts that a message names
_LINES = 15  # of a summary
_NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class Pace:
    """How often somebody may be bothered. All times in seconds.

    Args:
        window: what comes within it is told together; what is over within it is not told.
        limit: messages, at most, within `per`.
        per: see `limit`.
        kept: of `limit`, those that are kept for errors and what is fatal.
        quiet: by level, how long a group that has been told is left alone when it only grows.
    """

    window: float = 2.5
    limit: int = 10
    per: float = 60.0
    kept: int = 3
    quiet: Mapping[Level, float] = field(
        default_factory=lambda: MappingProxyType(
            {Level.INFO: 600.0, Level.WARNING: 600.0, Level.ERROR: 30.0, Level.FATAL: 5.0}
        )
    )


@dataclass(frozen=True, slots=True)
class Notice:
    """One message.

    Args:
        level: how loud.
        title: one line that says it all.
        text: what was seen, or the lines of a summary; may be empty.
        advice: what to do; empty where nothing is.
        codes: the numbers of what it tells.
        accounts: whom it concerns.
        count: how many failures it stands for.
        resolved: whether it says that something is over.
        seconds: how long that had lasted.
    """

    level: Level
    title: str
    text: str
    advice: str
    codes: tuple[int, ...]
    accounts: tuple[str, ...]
    count: int
    resolved: bool = False
    seconds: float = 0.0


class Notices:
    """The messages of one sink: `take` what is new, send what is `due`."""

    def __init__(self, level: Level, pace: Pace | None = None) -> None:
        """Begin with nothing to tell.

        Args:
            level: what is below it is not told.
            pace: where the default doesn't suit.
        """
        self._level = level
        self._pace = pace or Pace()
        self._groups: dict[str, _Group] = {}
        self._events: dict[int, _Events] = {}
        self._where: dict[str, _Group] = {}  # subject -> its group
        self._sent: deque[float] = deque()

    def take(self, news: News, now: float) -> None:
        """Something is new."""
        if isinstance(news, Ended):
            self._leave(news.subject, news.how, now)
        elif LOUDNESS[news.code.level] < LOUDNESS[self._level]:
            if isinstance(news, Began):
                self._leave(news.subject, "", now)
        elif isinstance(news, Happened):
            events = self._events.setdefault(news.code.number, _Events(self._pace, news.code))
            events.add(news, now)
        else:
            self._join(news, now)

    def due(self, now: float) -> list[Notice]:
        """The messages that are to leave now."""
        while self._sent and now - self._sent[0] >= self._pace.per:
            self._sent.popleft()
        waiting: list[_Group | _Events] = [*self._groups.values(), *self._events.values()]
        ready = sorted((each for each in waiting if each.due <= now), key=lambda each: -LOUDNESS[each.level])
        grave = [each for each in ready if LOUDNESS[each.level] >= LOUDNESS[Level.ERROR]]
        told = self._fit(grave, self._pace.limit, now)
        told += self._fit(ready[len(grave) :], self._pace.limit - self._pace.kept, now)
        self._groups = {key: group for key, group in self._groups.items() if not group.is_done}
        self._events = {key: events for key, events in self._events.items() if not events.is_done(now)}
        return told

    def _fit(self, ready: list[_Group | _Events], limit: int, now: float) -> list[Notice]:
        """As many messages as may leave; the last that may is a summary of the rest."""
        room = limit - len(self._sent)
        if room <= 0 or not ready:
            return []
        single = len(ready) if len(ready) <= room else room - 1
        notices = [each.notice(now) for each in ready[:single]]
        if ready[single:]:
            notices.append(_summary([each.notice(now) for each in ready[single:]]))
        self._sent.extend([now] * len(notices))
        return notices

    def _join(self, began: Began, now: float) -> None:
        group = self._where.get(began.subject)
        if group is not None and group.key != began.group:
            self._leave(began.subject, "", now)
            group = None
        if group is None:
            group = self._groups.setdefault(began.group, _Group(self._pace, began.group, now))
            self._where[began.subject] = group
        group.join(began, now)

    def _leave(self, subject: str, how: str, now: float) -> None:
        """The subject's trouble is over, or (no `how`) is told elsewhere or not at all."""
        group = self._where.pop(subject, None)
        if group is None:
            return
        group.leave(subject, how, now)
        if group.is_done:
            del self._groups[group.key]


class _Group:
    """Troubles that are told as one."""

    def __init__(self, pace: Pace, key: str, now: float) -> None:
        self.key = key
        self._pace = pace
        self._began = now
        self._present: dict[str, Began] = {}
        self._untold: dict[str, float] = {}  # subject -> since when
        self._told: dict[str, Began] = {}
        self._ended: dict[str, tuple[Began, float]] = {}  # were told, and their end is not yet; when it was
        self._said: Level | None = None  # the loudest that was said
        self._said_at = 0.0
        self._how = ""

    @property
    def level(self) -> Level:
        """The loudest of what is to be told, or was."""
        codes = [each.code for each in self._present.values()] or [
            each.code for each, _ in self._ended.values()
        ]
        return _loudest(codes).level

    @property
    def due(self) -> float:
        """When it has something to tell."""
        return min(self._news_due, self._end_due)

    @property
    def is_done(self) -> bool:
        """Whether nothing of it is left to be told."""
        return not self._present and not self._ended

    def join(self, began: Began, now: float) -> None:
        """A trouble is one of these, or still is."""
        subject, loudness = began.subject, LOUDNESS[began.code.level]
        ended, at = self._ended.pop(subject, (None, 0.0))
        if ended is not None and now - at < self._pace.quiet[began.code.level]:
            self._told[subject] = ended  # it was not over
        self._present[subject] = began
        if subject not in self._told or loudness > LOUDNESS[self._told[subject].code.level]:
            self._untold.setdefault(subject, now)

    def leave(self, subject: str, how: str, now: float) -> None:
        """A trouble is over, or (no `how`) none of these any longer."""
        del self._present[subject]
        self._untold.pop(subject, None)
        told = self._told.pop(subject, None)
        if told is not None and how:
            self._ended[subject] = told, now
            self._how = how

    def notice(self, now: float) -> Notice:
        """What is to be told now."""
        if self._end_due < self._news_due:
            return self._resolved()
        fresh = [self._present[subject] for subject in self._untold]
        code = _loudest(each.code for each in fresh)
        # A path's, or the fleet's, is told as the whole that it is; of others those that have been added.
        shown = fresh if self._is_each_by_itself else list(self._present.values())
        self._told |= self._present
        self._untold.clear()
        self._said = code.level if self._said is None else _louder(self._said, code.level)
        self._said_at = now
        accounts = _touched(shown)
        return Notice(
            level=code.level,
            title=f"{self._whose(shown, accounts)}{code.says}",
            text=_lines(_named(accounts), next((each.what for each in fresh if each.code is code), "")),
            advice=_advice(code, accounts),
            codes=_numbers(shown),
            accounts=accounts,
            count=len(shown),
            seconds=now - self._began,
        )

    @property
    def _is_each_by_itself(self) -> bool:
        return self.key.startswith("code:")

    @property
    def _news_due(self) -> float:
        if not self._untold:
            return _NEVER
        window = min(self._untold.values()) + self._pace.window
        loudest = _loudest(self._present[subject].code for subject in self._untold).level
        if self._said is None or LOUDNESS[loudest] > LOUDNESS[self._said]:
            return window
        return max(window, self._said_at + self._pace.quiet[loudest])

    @property
    def _end_due(self) -> float:
        if not self._ended:
            return _NEVER
        if not self._present:
            return max(at for _, at in self._ended.values()) + self._pace.window
        if not self._is_each_by_itself:
            return _NEVER
        return min(at for _, at in self._ended.values()) + self._pace.quiet[Level.ERROR]

    def _resolved(self) -> Notice:
        ended = [trouble for trouble, _ in self._ended.values()]
        seconds = max(at for _, at in self._ended.values()) - self._began
        self._ended.clear()
        code, accounts = _loudest(each.code for each in ended), _touched(ended)
        return Notice(
            level=Level.INFO,
            title=f"Over: {self._whose(ended, accounts)}{code.says}",
            text=_lines(_named(accounts), f"After {_length(seconds)}: {self._how}."),
            advice="",
            codes=_numbers(ended),
            accounts=accounts,
            count=len(ended),
            resolved=True,
            seconds=seconds,
        )

    def _whose(self, shown: list[Began], accounts: tuple[str, ...]) -> str:
        sort, _, name = self.key.partition(":")
        names = _names(accounts)
        if sort == "path" and any(each.subject == self.key for each in shown):
            return f"path {name}{f', {names}' if names else ''}: "
        if sort in ("path", "flapping") and len(accounts) > 1:
            return f"{names} on {name}: "
        return f"{names}: " if names else ""


class _Events:
    """What only happens, of one number."""

    def __init__(self, pace: Pace, code: Code) -> None:
        self.level = code.level
        self._pace = pace
        self._code = code
        self._since: float | None = None  # the first that is untold
        self._said_at = -_NEVER
        self._heard: set[str] = set()  # whose was told before
        self._who: dict[str, int] = {}
        self._what = ""

    @property
    def due(self) -> float:
        if self._since is None:
            return _NEVER
        is_news = self._who.keys() - self._heard
        quiet = self._pace.quiet[self.level] if is_news else self._quiet
        return max(self._since + self._pace.window, self._said_at + quiet)

    @property
    def _quiet(self) -> float:
        """How long those that have been told of are left alone."""
        return max(self._pace.quiet[self.level], self._pace.quiet[Level.WARNING])

    def is_done(self, now: float) -> bool:
        return self._since is None and now - self._said_at >= self._quiet

    def add(self, news: Happened, now: float) -> None:
        if self._since is None:
            self._since, self._what = now, news.what
        # What only a call has met may be told less loudly than the rest of its number.
        self.level = _louder(self.level, news.code.level)
        self._who[news.who] = self._who.get(news.who, 0) + news.count

    def notice(self, now: float) -> Notice:
        accounts, count = tuple(who for who in self._who if who), sum(self._who.values())
        self._heard |= self._who.keys()
        self._since, self._said_at, self._who = None, now, {}
        times = f" ({count:,} times)" if count > 1 else ""
        whose = f"{_names(accounts)}: " if accounts else ""
        return Notice(
            level=self.level,
            title=f"{whose}{self._code.says.removesuffix('.')}{times}.",
            text=_lines(_named(accounts), self._what),
            advice=_advice(self._code, accounts),
            codes=(self._code.number,),
            accounts=accounts,
            count=count,
        )


def _summary(notices: list[Notice]) -> Notice:
    """Many messages as one."""
    lines = [notice.title for notice in notices[:_LINES]]
    if len(notices) > _LINES:
        lines.append(f"and {len(notices) - _LINES} more")
    level = max((notice.level for notice in notices), key=LOUDNESS.__getitem__)
    return Notice(
        level=level,
        title=f"{len(notices)} more, kept back because there are so many",
        text="\n".join(lines),
        advice="tg-supervisor status; tg-supervisor log",
        codes=tuple(dict.fromkeys(code for notice in notices for code in notice.codes)),
        accounts=tuple(dict.fromkeys(name for notice in notices for name in notice.accounts)),
        count=sum(notice.count for notice in notices),
    )


def _loudest(codes: Iterable[Code]) -> Code:
    return max(codes, key=lambda code: LOUDNESS[code.level])


def _louder(one: Level, other: Level) -> Level:
    return max(one, other, key=LOUDNESS.__getitem__)


def _touched(troubles: list[Began]) -> tuple[str, ...]:
    """The accounts, each once."""
    names: dict[str, None] = {}
    for trouble in troubles:
        is_account = trouble.who and not trouble.subject.startswith(("path:", "outage:"))
        own = (trouble.who,) if is_account else ()
        names.update(dict.fromkeys((*own, *trouble.accounts)))
    return tuple(names)


def _numbers(troubles: list[Began]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(each.code.number for each in troubles))


def _names(accounts: tuple[str, ...]) -> str:
    """All of them where they are few, else how many."""
    return ", ".join(accounts) if len(accounts) <= _NAMED else f"{len(accounts):,} accounts"


def _named(accounts: tuple[str, ...]) -> str:
    """Some of them where they are many."""
    if len(accounts) <= _NAMED:
        return ""
    return f"{', '.join(accounts[:_NAMED])} and {len(accounts) - _NAMED:,} more"


def _lines(*lines: str) -> str:
    return "\n".join(line for line in lines if line)


def _advice(code: Code, accounts: tuple[str, ...]) -> str:
    return code.advice.replace("NAME", accounts[0]) if len(accounts) == 1 else code.advice


def _length(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
