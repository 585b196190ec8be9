"""What befalls an account, and what is done about it: the events and the effects of its state table (`lifecycle`)."""

from __future__ import annotations

from dataclasses import dataclass

from supervisor.core.failure import Action, Failure, Result
from supervisor.core.incident import Incident

# --- events -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    """Bring the account online."""


@dataclass(frozen=True, slots=True)
class Proved:
    """An RPC was answered on the present link, over this path; `by` what, if not by the action ordered."""

    path: str
    by: Action | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """Something failed whose scope is wider than one call.

    `path_broken`: the path was asked and does not answer either. `elsewhere`: the account has another
    path that it may use. `retry_in`: seconds until the path is asked again, where that is not soon.
    """

    failure: Failure
    path_broken: bool = False
    elsewhere: bool = False
    retry_in: float = 0.0


@dataclass(frozen=True, slots=True)
class DelayOver:
    """The delay before the next action has passed."""


@dataclass(frozen=True, slots=True)
class PathBack:
    """The broken path answers again, or (`elsewhere`) another that the account may use does."""

    elsewhere: bool = False


@dataclass(frozen=True, slots=True)
class Pause:
    """A person wants the account offline."""


@dataclass(frozen=True, slots=True)
class Retry:
    """A person wants it tried now (also: resume)."""


@dataclass(frozen=True, slots=True)
class Rotate:
    """A person, or the changed configuration, has put it on this path."""

    path: str


@dataclass(frozen=True, slots=True)
class Excused:
    """The link that it has just lost is not held against it: many others were lost with it."""


@dataclass(frozen=True, slots=True)
class Stop:
    """The daemon stops, or the account was removed."""


Event = Start | Proved | Failed | DelayOver | PathBack | Pause | Retry | Rotate | Excused | Stop

# --- effects ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Attempt:
    """Perform one recovery action; its end is told as Proved or Failed."""

    action: Action
    verify: bool = False


@dataclass(frozen=True, slots=True)
class Delay:
    """Tell DelayOver after so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class AwaitPath:
    """Tell PathBack when the broken path answers."""


@dataclass(frozen=True, slots=True)
class CloseLink:
    """Nothing of this account stays on the network."""


@dataclass(frozen=True, slots=True)
class HoldCalls:
    """Calls wait for the next link."""


@dataclass(frozen=True, slots=True)
class ReleaseCalls:
    """Held calls go out, in order."""


@dataclass(frozen=True, slots=True)
class RefuseCalls:
    """Calls fail at once with AccountUnavailable."""


@dataclass(frozen=True, slots=True)
class Log:
    """A row for the recovery log; `failure` None closes the incident as recovered. `of` is the cap of attempts."""

    incident: Incident
    result: Result
    action: Action
    failure: Failure | None = None
    attempt: int = 0
    delay: float = 0.0
    duration: float | None = None
    of: int = 0


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The incident is over by a person's word: it has neither recovered nor failed."""

    incident: Incident


Effect = Attempt | Delay | AwaitPath | CloseLink | HoldCalls | ReleaseCalls | RefuseCalls | Log | GiveUp
