"""The flood waits of one account, by method and peer. Wall time is `now`, monotonic time `mono`."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from supervisor.core.ledger import SENDING, Flood, Ledger, restore

NOW = 1_700_000_000.0  # the wall clock at monotonic 0
SEND = "messages.SendMessage"
HISTORY = "messages.GetHistory"


def flooded(ledger: Ledger, method: str, peer: str | None, seconds: float, mono: float = 0.0) -> Ledger:
    return ledger.flooded(method, peer, seconds, NOW + mono, mono)[0]


# --- One wait ---


def test_an_empty_ledger_holds_nothing() -> None:
    """Without a wait every call may leave."""
    assert Ledger().remaining(SEND, "42", 0.0) == 0.0
    assert Ledger().rows(NOW, 0.0) == ()


def test_a_wait_is_held_to_its_last_second() -> None:
    """A call waits exactly what Telegram said, counted from when it was said."""
    ledger = flooded(Ledger(), SEND, "42", 35.0, mono=100.0)
    assert ledger.remaining(SEND, "42", 100.0) == 35.0
    assert ledger.remaining(SEND, "42", 134.5) == 0.5
    assert ledger.remaining(SEND, "42", 135.0) == 0.0
    assert ledger.remaining(SEND, "42", 1000.0) == 0.0


def test_a_wait_holds_its_method_and_peer_only() -> None:
    """Other peers, other methods and calls without a peer go on."""
    ledger = flooded(Ledger(), SEND, "42", 35.0)
    assert ledger.remaining(SEND, "43", 0.0) == 0.0
    assert ledger.remaining(SEND, None, 0.0) == 0.0
    assert ledger.remaining(HISTORY, "42", 0.0) == 0.0


def test_a_wait_without_a_peer_holds_the_method() -> None:
    """Where the call named no peer the whole method waits."""
    ledger = flooded(Ledger(), SEND, None, 35.0)
    assert ledger.remaining(SEND, None, 0.0) == 35.0
    assert ledger.remaining(SEND, "42", 0.0) == 35.0
    assert ledger.remaining(HISTORY, None, 0.0) == 0.0


def test_a_ledger_is_a_value() -> None:
    """A new wait makes a new ledger; the old one is as it was."""
    empty = Ledger()
    assert flooded(empty, SEND, None, 35.0) == flooded(Ledger(), SEND, None, 35.0)
    assert empty == Ledger()


def test_a_second_demand_never_shortens_the_first() -> None:
    """The same call flooded again waits until the later end."""
    ledger = flooded(flooded(Ledger(), SEND, "42", 35.0), SEND, "42", 5.0, mono=10.0)
    assert ledger.remaining(SEND, "42", 10.0) == 25.0
    assert flooded(ledger, SEND, "42", 40.0, mono=10.0).remaining(SEND, "42", 10.0) == 40.0


def test_one_peer_flooded_twice_holds_no_other() -> None:
    """Only a different peer widens a wait."""
    ledger = flooded(flooded(Ledger(), SEND, "42", 35.0), SEND, "42", 50.0)
    assert ledger.remaining(SEND, "43", 0.0) == 0.0


@pytest.mark.parametrize("seconds", [0.0, -3.0])
def test_no_seconds_are_no_wait(seconds: float) -> None:
    """A wait of nothing, or less, holds nothing."""
    ledger, row = Ledger().flooded(SEND, "42", seconds, NOW, 0.0)
    assert row.seconds == 0.0
    assert ledger.remaining(SEND, "42", 0.0) == 0.0


# --- Widening ---


def test_a_second_peer_widens_the_wait_to_the_method() -> None:
    """Two peers flooded at once: Telegram means the method, until the later of both ends."""
    ledger = flooded(Ledger(), SEND, "42", 35.0)
    ledger, row = ledger.flooded(SEND, "43", 10.0, NOW + 5.0, 5.0)
    assert row == Flood(SEND, None, NOW + 5.0, 30.0)
    for peer in ("42", "43", "44", None):
        assert ledger.remaining(SEND, peer, 5.0) == 30.0
    assert ledger.remaining(HISTORY, "42", 5.0) == 0.0
    assert ledger.rows(NOW + 5.0, 5.0) == (row,)


def test_the_second_peers_wait_counts_where_it_is_longer() -> None:
    """The later end is the second one's here."""
    ledger = flooded(flooded(Ledger(), SEND, "42", 35.0), SEND, "43", 60.0)
    assert ledger.remaining(SEND, "42", 0.0) == 60.0


def test_a_widened_wait_is_widened_further() -> None:
    """A third peer flooded meanwhile prolongs the method's wait."""
    ledger = flooded(flooded(Ledger(), SEND, "42", 35.0), SEND, "43", 10.0)
    assert flooded(ledger, SEND, "44", 50.0).remaining(SEND, "45", 0.0) == 50.0


def test_widening_forgets_no_longer_wait() -> None:
    """A peer's own wait that outlasts the method's is kept when another peer widens both."""
    ledger = flooded(flooded(Ledger(), SEND, "42", 50.0), SEND, None, 10.0)
    assert ledger.remaining(SEND, "43", 0.0) == 10.0
    assert flooded(ledger, SEND, "43", 5.0).remaining(SEND, "43", 0.0) == 50.0
    assert flooded(ledger, SEND, "42", 5.0).remaining(SEND, "42", 0.0) == 50.0
    assert flooded(ledger, SEND, "42", 5.0).remaining(SEND, "43", 0.0) == 10.0


def test_a_wait_that_is_over_widens_nothing() -> None:
    """The second peer was flooded after the first one's wait: each waits alone."""
    ledger = flooded(flooded(Ledger(), SEND, "42", 35.0), SEND, "43", 10.0, mono=35.0)
    assert ledger.remaining(SEND, "43", 35.0) == 10.0
    assert ledger.remaining(SEND, "42", 35.0) == 0.0


def test_another_method_widens_nothing() -> None:
    """Methods are counted apart."""
    ledger = flooded(flooded(Ledger(), SEND, "42", 35.0), HISTORY, "43", 10.0)
    assert ledger.remaining(SEND, "44", 0.0) == 0.0
    assert ledger.remaining(HISTORY, "44", 0.0) == 0.0


# --- Slow mode ---


def test_slow_mode_holds_every_sending_method_in_its_chat() -> None:
    """Text, media, albums, forwards and inline results wait; reading does not."""
    ledger, row = Ledger().slowed("-100", 10.0, NOW, 0.0)
    assert row == Flood(SENDING, "-100", NOW, 10.0)
    for method in ("SendMessage", "SendMedia", "SendMultiMedia", "ForwardMessages", "SendInlineBotResult"):
        assert ledger.remaining(f"messages.{method}", "-100", 0.0) == 10.0
    assert ledger.remaining(HISTORY, "-100", 0.0) == 0.0


def test_slow_mode_holds_no_other_chat() -> None:
    """Slow mode of two chats stays with the two: it never widens."""
    ledger = Ledger().slowed("-100", 10.0, NOW, 0.0)[0].slowed("-200", 20.0, NOW, 0.0)[0]
    assert ledger.remaining(SEND, "-100", 0.0) == 10.0
    assert ledger.remaining(SEND, "-200", 0.0) == 20.0
    assert ledger.remaining(SEND, "-300", 0.0) == 0.0
    assert ledger.remaining(SEND, None, 0.0) == 0.0


def test_slow_mode_and_a_flood_wait_add_up_to_the_longer() -> None:
    """A call under both waits for the later end."""
    ledger = Ledger().slowed("-100", 10.0, NOW, 0.0)[0]
    assert flooded(ledger, SEND, "-100", 5.0).remaining(SEND, "-100", 0.0) == 10.0
    assert flooded(ledger, SEND, "-100", 15.0).remaining(SEND, "-100", 0.0) == 15.0


# --- Memory ---


def test_waits_that_are_over_are_dropped() -> None:
    """A ledger holds what runs, not what ran."""
    ledger = Ledger()
    for second in range(1000):
        ledger = ledger.slowed(str(second), 10.0, NOW + second, float(second))[0]
    assert len(ledger.until) == 10


# --- Restart ---


def test_what_is_left_of_a_wait_survives_a_restart() -> None:
    """Rows are told from the moment they are saved; a later process waits what remains."""
    ledger = flooded(Ledger(), SEND, "42", 100.0)
    (row,) = ledger.rows(NOW + 30.0, 30.0)
    assert row == Flood(SEND, "42", NOW + 30.0, 70.0)
    assert restore([row], NOW + 50.0, 7.0).remaining(SEND, "42", 7.0) == 50.0
    assert restore([row], NOW + 50.0, 7.0).remaining(SEND, "42", 57.0) == 0.0


def test_a_wait_that_ended_meanwhile_is_not_taken_up() -> None:
    """What was over before the restart holds nothing."""
    assert restore([Flood(SEND, "42", NOW, 10.0)], NOW + 10.0, 0.0) == Ledger()


def test_a_clock_that_went_back_means_the_whole_wait() -> None:
    """Seen in the future: nobody knows what is left, so all of it is waited, and no more."""
    assert restore([Flood(SEND, "42", NOW, 10.0)], NOW - 9999.0, 0.0).remaining(SEND, "42", 0.0) == 10.0


def test_two_rows_of_one_key_give_the_later_end() -> None:
    """In whatever order they were saved."""
    rows = [Flood(SEND, None, NOW, 10.0), Flood(SEND, None, NOW, 30.0), Flood(SEND, None, NOW, 20.0)]
    assert restore(rows, NOW, -50.0).remaining(SEND, None, -50.0) == 30.0


def test_slow_mode_survives_a_restart() -> None:
    """Its row is as good as any."""
    row = Ledger().slowed("-100", 10.0, NOW, 0.0)[1]
    assert restore([row], NOW + 4.0, 0.0).remaining(SEND, "-100", 0.0) == 6.0


# --- Whatever comes ---

METHODS = st.sampled_from([SEND, HISTORY])
PEERS = st.sampled_from([None, "1", "2", "3"])
SECONDS = st.integers(0, 3600).map(float)


class Waits(RuleBasedStateMachine):
    """Random demands, clock changes and restarts, against every demand remembered by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.mono = 1000.0
        self.now = NOW
        self.demands: list[tuple[str, str | None, float]] = []  # method, peer, end
        self.longest = 0.0

    @rule(method=METHODS, peer=PEERS, seconds=SECONDS)
    def flooded(self, method: str, peer: str | None, seconds: float) -> None:
        self.ledger, row = self.ledger.flooded(method, peer, seconds, self.now, self.mono)
        assert row.method == method
        assert row.peer in (peer, None)
        assert row.seconds >= seconds
        self._demanded(method, peer, seconds)

    @rule(chat=st.sampled_from(["1", "2"]), seconds=SECONDS)
    def slowed(self, chat: str, seconds: float) -> None:
        self.ledger, _ = self.ledger.slowed(chat, seconds, self.now, self.mono)
        self._demanded(SEND, chat, seconds)

    def _demanded(self, method: str, peer: str | None, seconds: float) -> None:
        self.demands.append((method, peer, self.mono + seconds))
        self.longest = max(self.longest, self.mono + seconds)

    @rule(seconds=SECONDS)
    def time_passes(self, seconds: float) -> None:
        self.mono += seconds
        self.now += seconds

    @rule(seconds=st.integers(-(10**7), 10**7).map(float))
    def the_wall_clock_is_changed(self, seconds: float) -> None:
        self.now += seconds

    @rule(away=SECONDS)
    def restarted_cleanly(self, away: float) -> None:
        rows = self.ledger.rows(self.now, self.mono)
        self.time_passes(away)
        self.ledger = restore(rows, self.now, self.mono)

    @invariant()
    def never_negative_never_early_never_longer_than_demanded(self) -> None:
        for method in (SEND, HISTORY):
            for peer in (None, "1", "2", "3"):
                remaining = self.ledger.remaining(method, peer, self.mono)
                ends = [end for name, whom, end in self.demands if name == method and whom in (peer, None)]
                assert remaining >= 0.0
                assert self.mono + remaining >= max(ends, default=0.0)
                assert remaining <= max(0.0, self.longest - self.mono)


TestWaits = Waits.TestCase
TestWaits.settings = settings(max_examples=60, stateful_step_count=25)


@given(st.floats(0, 1e6), st.floats(1e-3, 1e6), st.floats(0, 1e6))
def test_any_wait_is_exact(mono: float, seconds: float, later: float) -> None:
    """What remains after any time is the demand less that time, to a microsecond."""
    ledger = flooded(Ledger(), SEND, None, seconds, mono=mono)
    assert ledger.remaining(SEND, "42", mono + later) == pytest.approx(max(0.0, seconds - later), abs=1e-6)


@given(st.floats(0, 2e9), st.floats(0, 1e6), st.floats(0, 2e9))
def test_a_restored_wait_is_never_longer_than_it_was(seen_at: float, seconds: float, now: float) -> None:
    """Whatever the clocks say, at most the demand is waited again."""
    remaining = Flood(SEND, None, seen_at, seconds).remaining(now)
    assert 0.0 <= remaining <= seconds
