"""Every failure's number: what an operator looks up, what a notification is chosen by, what `explain 4011` prints.

A number never changes its meaning. 1xxx is what Telegram said, 2xxx storage, 3xxx files and configuration, 4xxx the
network and proxies, 5xxx the supervisor and a bot's own code.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from supervisor.core.classify import is_frozen
from supervisor.core.failure import Failure, Kind, Level, Remedy, Result, Row, Scope, Source


class Category(StrEnum):
    """Whether trying again can help: by itself, after a person has acted, or not at all."""

    RETRYABLE = "retryable"
    NON_RETRYABLE = "non_retryable"
    FATAL = "fatal"


@dataclass(frozen=True, slots=True)
class Code:
    """One numbered failure.

    `says` is a sentence for the operator, `advice` what to do about it; ``NAME`` in it stands for the account.
    """

    number: int
    name: str
    category: Category
    level: Level
    says: str
    advice: str


_R, _N, _F = Category.RETRYABLE, Category.NON_RETRYABLE, Category.FATAL
_INFO, _WARNING, _ERROR, _FATAL = Level.INFO, Level.WARNING, Level.ERROR, Level.FATAL

GROUPS: Final = MappingProxyType(
    {
        1: "Telegram",
        2: "Storage",
        3: "Files and configuration",
        4: "Network and proxies",
        5: "The supervisor and a bot's own code",
    }
)

_TABLE: Final = (
    # --- 1xxx: Telegram -------------------------------------------------------------------------------
    Code(1001, "flood_wait", _R, _INFO, "Telegram wants a pause before this method is called again.",
         "Nothing: it is waited for in full. Often? Call this method less."),
    Code(1002, "slow_mode", _R, _INFO, "The chat is in slow mode: the next message has to wait.",
         "Nothing: it is waited for in full."),
    Code(1003, "rate_limit", _R, _WARNING, "Telegram limits the account without saying for how long.",
         "Nothing at first: it waits, longer each time. If it stays, do less with this account."),
    Code(1004, "transport_flood", _R, _WARNING, "Telegram takes no more connections from this address for now (-429).",
         "Nothing at first: the path is slowed. If it stays, spread the accounts over more proxies."),
    Code(1005, "sign_in_flood", _R, _ERROR, "Telegram wants a long pause before the next sign-in.",
         "Wait: the sign-in is tried again by itself when the time is over."),
    Code(1010, "session_lost", _R, _WARNING, "Telegram no longer accepts the session.",
         "Nothing for a bot: it signs in again. A user account: tg-supervisor login NAME"),
    Code(1011, "login_needed", _N, _ERROR, "Nobody is signed in on this account, and signing in needs a person.",
         "tg-supervisor login NAME"),
    Code(1012, "token_refused", _F, _FATAL, "Telegram refuses the bot's token.",
         "Get the present token from @BotFather, put it where the configuration reads it, then: tg-supervisor reload"),
    Code(1013, "account_banned", _F, _FATAL, "Telegram has banned or deleted this account.",
         "Nothing can be done here. An appeal: https://telegram.org/support"),
    Code(1014, "key_duplicated", _N, _ERROR, "The session was used from two places at once; Telegram has killed its key.",
         "Find the other program that uses this session and stop it. Then, for a user: tg-supervisor login NAME"),
    Code(1015, "key_unknown", _R, _WARNING, "The datacenter does not know the session's key (-404).",
         "Nothing: it is tried on fresh connections first, and given up at the third in a row."),
    Code(1016, "sign_in_budget", _R, _ERROR, "The account has used up its sign-ins (sign_ins_per_hour, sign_ins_per_day).",
         "Find out why its sessions are lost: tg-supervisor log --account NAME. The next sign-in is tried by itself."),
    Code(1020, "limited", _R, _WARNING, "Telegram limits what the account may do; it keeps running.",
         "Slow down with it. Ask @SpamBot from this account what is limited, and until when."),
    Code(1021, "frozen", _N, _ERROR, "The account is frozen: it can read and nothing else.",
         "Appeal in an official app. When it is over: tg-supervisor retry NAME"),
    Code(1030, "server_error", _R, _WARNING, "Telegram's server failed.",
         "Nothing: it is tried again. If it stays, it is Telegram's trouble."),
    Code(1040, "request_refused", _N, _INFO, "Telegram refused a request as wrong; its caller got the error.",
         "Mend the code that made the call: tg-supervisor explain ERROR says what it means."),
    Code(1041, "account_refused", _F, _FATAL, "Telegram refuses the account in a way that no further try can change.",
         "tg-supervisor explain ERROR says what it means. When it is mended: tg-supervisor retry NAME"),
    Code(1042, "wrong_datacenter", _F, _FATAL, "The datacenter is not the one that this session belongs to (-444).",
         "Check [telegram.server]: its host, port and dc_id, test or production."),
    Code(1043, "server_key_unknown", _F, _FATAL, "The server has no RSA key that is known here.",
         "Check [telegram.server] public_key. If Telegram's own was dialled, somebody stands in between."),
    Code(1044, "protocol", _R, _WARNING, "The server and this client disagreed about the protocol.",
         "Nothing: a new connection sets it right. If it stays, check this machine's clock."),
    Code(1045, "unreadable", _N, _WARNING, "Telegram sent something in a form that the installed client library does not know.",
         "Update the client library, where there is a newer one."),
    Code(1046, "updates_stopped", _R, _WARNING, "Telegram had stopped sending updates; what was missing has been fetched.",
         "Nothing."),
    Code(1050, "already_done", _R, _INFO, "What was asked for is so already.", "Nothing."),
    Code(1051, "migrate", _R, _INFO, "Telegram sent the request to another datacenter.", "Nothing."),
    Code(1099, "unknown_answer", _R, _WARNING, "Telegram answered with an error that is in no table.",
         "If it matters, judge it yourself in [classify], and tell us."),
    # --- 2xxx: storage --------------------------------------------------------------------------------
    Code(2001, "storage_busy", _R, _WARNING, "A database is locked by another program.",
         "Close that program: a backup, or a sqlite3 shell?"),
    Code(2002, "storage_full", _R, _ERROR, "The disk is full.", "Free some space; it goes on by itself."),
    Code(2003, "storage_damaged", _F, _FATAL, "A database is damaged. Nothing was deleted.",
         "Stop the daemon, keep a copy, restore a backup or use sqlite3's .recover, then: tg-supervisor retry NAME"),
    Code(2004, "session_unreadable", _F, _FATAL, "A session file or string holds no usable key.",
         "Give the account another session_file or session_string, or none and: tg-supervisor login NAME"),
    Code(2009, "storage_failed", _R, _ERROR, "A database cannot be read or written.",
         "Check the disk, and the owner and permissions of state_dir and the files in it."),
    # --- 3xxx: files and configuration ----------------------------------------------------------------
    Code(3001, "config_invalid", _N, _ERROR, "The configuration is wrong; a running daemon keeps the old one.",
         "tg-supervisor check names every line that is wrong."),
    Code(3002, "installation", _F, _FATAL, "The installation is broken: two packages are in each other's way.",
         "Do what the message says, best in a fresh virtual environment."),
    Code(3010, "bad_request", _N, _INFO, "The request to the daemon makes no sense.", "Mend the request."),
    Code(3011, "unknown_command", _N, _INFO, "The daemon knows no such command.",
         "Use a tg-supervisor of the daemon's own version."),
    Code(3012, "wrong_method", _N, _INFO, "The command exists, but not for this HTTP method.", "Mend the request."),
    Code(3013, "unknown_account", _N, _INFO, "No account is called so.", "tg-supervisor status lists them."),
    Code(3014, "unknown_proxy", _N, _INFO, "The account may not use this proxy.",
         "Name one that its proxy key names, or add it there: tg-supervisor check lists them."),
    Code(3015, "token_missing", _N, _INFO, "The dashboard was asked without its token, or with a wrong one.",
         "Give the token of [dashboard], else that of dashboard.token in state_dir."),
    # --- 4xxx: network and proxies --------------------------------------------------------------------
    Code(4001, "connection_failed", _R, _WARNING, "No connection to Telegram could be made.",
         "Nothing: it is tried again. If it stays, check this machine's network and DNS, and [telegram.server] if set."),
    Code(4002, "connection_lost", _R, _WARNING, "The connection to Telegram was lost.",
         "Nothing: it is made again. If it happens often, check this machine's network."),
    Code(4003, "link_silent", _R, _WARNING, "Nothing came over the link any more.",
         "Nothing: it is made again. If it stays, check the network or the proxy."),
    Code(4004, "flapping", _R, _ERROR, "The connection does not last: it is made and lost again and again.",
         "Check the network or the proxy: tg-supervisor log --account NAME shows what each loss was."),
    Code(4005, "unreachable", _R, _ERROR, "Telegram cannot be reached on any path.",
         "Nothing: it is tried until it works. Check this machine's network, and whether Telegram itself is down."),
    Code(4010, "proxy_failed", _R, _WARNING, "The proxy refused, failed or fell silent.",
         "Nothing if there are others in its pool. If it stays, replace it: tg-supervisor stats shows the worst."),
    Code(4011, "proxy_refused_us", _N, _ERROR, "The proxy refuses the user or password.",
         "Mend its url in the configuration; many proxies ban a client that keeps trying."),
    Code(4012, "no_other_path", _N, _INFO, "The account has no other proxy that works; it stays where it is.",
         "Give it a pool, or mend the proxies that are broken: tg-supervisor status lists them."),
    # --- 5xxx: the supervisor and a bot's own code ----------------------------------------------------
    Code(5001, "code_failed", _R, _WARNING, "The bot's own code raised an exception.",
         "Mend it: tg-supervisor log --account NAME --json shows the traceback."),
    Code(5002, "callback_failed", _R, _WARNING, "A recovery callback raised, or took too long.",
         "Mend it; the incident went on with a plain retry."),
    Code(5003, "main_given_up", _N, _ERROR, "The bot's main keeps crashing, and is not started again.",
         "Mend it, then: tg-supervisor pause NAME && tg-supervisor resume NAME"),
    Code(5004, "loop_stalled", _R, _ERROR, "Blocking code held up every account.",
         "Run what the record names in a thread: await asyncio.to_thread(…)"),
    Code(5005, "handler_stuck", _R, _ERROR, "Handlers do not come to an end, and updates wait behind them.",
         "Mend what the record names: bound what it waits for."),
    Code(5006, "notify_failed", _N, _WARNING, "A notification could not be sent.",
         "Mend the sink in [notify], then: tg-supervisor notify test"),
    Code(5007, "out_of_files", _N, _ERROR, "This process may open no more files, and each account needs one.",
         "Raise LimitNOFILE= (systemd) or the hard limit of ulimit -n, and start the daemon again."),
    Code(5010, "suspended", _R, _ERROR, "The account is suspended: every try has failed so far.",
         "Nothing at first: it is tried again by itself. tg-supervisor retry NAME tries now."),
    Code(5011, "account_unavailable", _R, _WARNING, "The account is not online, or will not be in time.",
         "tg-supervisor status says why."),
    Code(5012, "outcome_unknown", _N, _WARNING, "A call may or may not have taken effect.",
         "Check before calling it again."),
    Code(5020, "not_running", _R, _INFO, "No daemon is running here.", "tg-supervisor run"),
    Code(5021, "not_ready", _R, _INFO, "The daemon has just started, or is about to stop.", "Ask again in a moment."),
    Code(5022, "no_answer", _R, _WARNING, "The daemon did not answer in time.",
         "Ask again. If it stays so, look at its log: something blocks it."),
    Code(5023, "bad_answer", _N, _WARNING, "The daemon's answer was not understood.",
         "Use a tg-supervisor of the daemon's own version."),
    Code(5024, "already_running", _R, _INFO, "Another daemon holds state_dir.", "Stop the other one first."),
    Code(5099, "internal", _N, _FATAL, "The supervisor met an error of its own.",
         "Report it with the traceback from the log, and: tg-supervisor retry NAME"),
)  # fmt: skip

CODES: Final = MappingProxyType({code.number: code for code in _TABLE})
NAMES: Final = MappingProxyType({code.name: code for code in _TABLE})


def code_of(failure: Failure, result: Result | None = None) -> Code:
    """The number of a failure.

    Args:
        failure: what was classified.
        result: what came of it, where that says more: an account that needs a person, or was suspended.
    """
    if result in _RESULTS and failure.error_id not in _SAYS_MORE:
        return NAMES[_RESULTS[result]]
    name = _IDS.get(failure.error_id or "") or _NAMED[failure.evidence.source](failure)
    return NAMES[name]


def code_of_row(row: Row) -> Code:
    """The number of a row of the log, as far as what is kept of it tells."""
    if row.code:
        return CODES[row.code]
    if row.outcome in _RESULTS and row.error_id not in _SAYS_MORE:
        return NAMES[_RESULTS[row.outcome]]
    is_final = row.outcome is Result.FAILED and row.scope is Scope.ACCOUNT
    return NAMES[_IDS.get(row.error_id or "") or ("account_refused" if is_final else _KINDS[row.kind])]


_RESULTS: Final = {Result.NEEDS_LOGIN: "login_needed", Result.SUSPENDED: "suspended"}
# What says more than that the account is suspended.
_SAYS_MORE: Final = frozenset({"SIGN_IN_BUDGET", "FLAPPING", "OUT_OF_FILES"})

_IDS: Final = {
    "SLOWMODE_WAIT_X": "slow_mode",
    "SIGN_IN_BUDGET": "sign_in_budget",
    "LOGIN_REQUIRED": "login_needed",
    "AUTH_KEY_DUPLICATED": "key_duplicated",
    "ACCESS_TOKEN_INVALID": "token_refused",
    "ACCESS_TOKEN_EXPIRED": "token_refused",
    "USER_DEACTIVATED": "account_banned",
    "USER_DEACTIVATED_BAN": "account_banned",
    "PHONE_NUMBER_BANNED": "account_banned",
    "SERVER_KEY_UNKNOWN": "server_key_unknown",
    "UNREADABLE": "unreadable",
    "UPDATES_STOPPED": "updates_stopped",
    "PROXY_AUTH_FAILED": "proxy_refused_us",
    "SQLITE_BUSY": "storage_busy",
    "SQLITE_LOCKED": "storage_busy",
    "SQLITE_FULL": "storage_full",
    "SQLITE_CORRUPT": "storage_damaged",
    "SQLITE_NOTADB": "storage_damaged",
    "SESSION_INVALID": "session_unreadable",
    "LOOP_STALLED": "loop_stalled",
    "HANDLER_STUCK": "handler_stuck",
    "OUT_OF_FILES": "out_of_files",
    "FLAPPING": "flapping",
}
_KINDS: Final = {
    Kind.FLOOD_WAIT: "flood_wait",
    Kind.RATE_LIMIT: "rate_limit",
    Kind.PROXY: "proxy_failed",
    Kind.CONNECTION: "connection_lost",
    Kind.AUTH: "session_lost",
    Kind.TEMPORARY: "server_error",
    Kind.PERMANENT: "request_refused",
    Kind.UNKNOWN: "unknown_answer",
    Kind.MIGRATE: "migrate",
    Kind.ALREADY_DONE: "already_done",
}
_TRANSPORT: Final = {-404: "key_unknown", -429: "transport_flood", -444: "wrong_datacenter"}
_STEPS: Final = {"callback": "callback_failed", "driver": "internal", "notify": "notify_failed"}


def _rpc(failure: Failure) -> str:
    if failure.limited:
        return "frozen" if is_frozen(failure.error_id) else "limited"
    if failure.remedy is Remedy.FAIL and failure.scope is Scope.ACCOUNT:
        return "account_refused"
    if failure.kind is Kind.FLOOD_WAIT and failure.evidence.step == "sign-in":
        return "sign_in_flood"
    return _KINDS[failure.kind]


def _socket(failure: Failure) -> str:
    return "connection_failed" if failure.evidence.step is not None else "connection_lost"


def _step(failure: Failure) -> str:
    return _STEPS.get((failure.evidence.step or "").partition(" ")[0], "code_failed")


_NAMED: Final = {
    Source.RPC: _rpc,
    Source.TRANSPORT: lambda failure: _TRANSPORT.get(failure.evidence.code or 0, "connection_lost"),
    Source.PROTOCOL: lambda _: "protocol",
    Source.SOCKET: _socket,
    Source.PROXY: lambda _: "proxy_failed",
    Source.SILENCE: lambda failure: "proxy_failed" if failure.kind is Kind.PROXY else "link_silent",
    Source.STORAGE: lambda _: "storage_failed",
    Source.CODE: _step,
}
