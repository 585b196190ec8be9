"""Numbered events: each once, in order, none missing, whatever happens to those that are pushed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.sequence import KEPT, Box, Step, Ticket, step


def items(handed: list[tuple[str, Ticket]]) -> list[str]:
    return [item for item, _ in handed]


def test_an_update_is_judged_by_where_it_begins_and_ends() -> None:
    """It applies where it begins where the box stands; is old where it ends there or before; else there is a gap."""
    assert step(10, 11, 1) is Step.APPLY
    assert step(10, 13, 3) is Step.APPLY
    assert step(10, 10, 0) is Step.APPLY
    assert step(10, 10, 1) is Step.OLD
    assert step(10, 4, 0) is Step.OLD
    assert step(10, 12, 1) is Step.GAP
    assert step(10, 12, 0) is Step.GAP


def test_an_overlap_is_a_gap() -> None:
    """An update of which a part is known already is not dropped: its end is news."""
    assert step(10, 12, 5) is Step.GAP


def test_what_comes_early_is_handed_out_in_order() -> None:
    """Updates out of order are handed out in order as soon as they join up."""
    box: Box[str] = Box(0, 10)
    assert items(box.take(12, 1, "b")) == []
    assert items(box.take(13, 1, "c")) == []
    assert box.has_gap
    assert items(box.take(11, 1, "a")) == ["a", "b", "c"]
    assert (box.pts, box.has_gap) == (13, False)


def test_an_update_without_events_follows_its_own() -> None:
    """Of two updates with one pts the one that stands for no event comes second, however they arrived."""
    box: Box[str] = Box(0, 10)
    assert items(box.take(11, 0, "note")) == []
    assert items(box.take(11, 1, "message")) == ["message", "note"]


def test_what_nobody_works_on_only_counts() -> None:
    """An answer of our own moves the box and is handed to nobody."""
    box: Box[str] = Box(0, 10)
    assert items(box.take(12, 1, "theirs")) == []
    assert items(box.take(11, 1, None)) == ["theirs"]
    assert box.finished == 11


def test_a_box_without_a_beginning_begins_with_its_first_update() -> None:
    """The first update of a channel that was not known is handed out, and so is the next."""
    box: Box[str] = Box(-1)
    assert items(box.take(7, 1, "a")) == ["a"]
    assert items(box.take(8, 1, "b")) == ["b"]
    assert items(box.take(7, 1, "again")) == []


def test_a_held_box_without_a_beginning_waits_for_it() -> None:
    """While it may turn out where such a box begins nothing is handed out; then the earliest update begins it."""
    box: Box[str] = Box(-1, is_held=True)
    assert items(box.take(8, 1, "b")) == items(box.take(7, 1, "a")) == []
    assert not box.has_gap
    assert items(box.release()) == ["a", "b"]
    empty: Box[str] = Box(-1, is_held=True)
    assert items(empty.release()) == []
    assert empty.pts is None


def test_a_difference_takes_the_place_of_what_it_brought() -> None:
    """What was pushed while a difference was on its way is handed out only as far as that did not bring it."""
    box: Box[str] = Box(0, 10)
    box.hold()
    for pts in (11, 12, 13):
        assert items(box.take(pts, 1, f"{pts}")) == []
    box.jump(12)
    assert items(box.release()) == ["13"]


def test_a_box_keeps_no_more_than_so_many() -> None:
    """Behind a gap that does not close updates are dropped in the end, and another difference is due."""
    box: Box[str] = Box(0, 10)
    for n in range(KEPT):
        box.take(12 + n, 1, "kept")
    assert not box.stale
    assert box.take(12 + KEPT, 1, "dropped") == []
    assert box.stale


def test_what_is_unfinished_would_come_again() -> None:
    """`finished` stays before the oldest unfinished update, in whatever order they are finished."""
    box: Box[str] = Box(0, 10)
    first, second, third = (box.take(pts, 1, "m")[0][1] for pts in (11, 12, 13))
    assert box.finished == 10
    second.done()
    assert box.finished == 10
    first.done()
    assert box.finished == 12
    third.done()
    assert box.finished == 13


def test_a_box_is_settled_when_nothing_of_it_is_to_come() -> None:
    """It is not while something is unfinished, kept behind a gap, due to be asked for, or on its way."""
    box: Box[str] = Box(0, 10)
    settled = [box.is_settled]
    ((_, ticket),) = box.take(11, 1, "a")
    settled.append(box.is_settled)
    ticket.done()
    box.take(13, 1, None)
    settled.append(box.is_settled)
    box.take(12, 1, None)
    box.stale = True
    settled.append(box.is_settled)
    box.stale = False
    box.hold()
    settled.append(box.is_settled)
    box.release()
    assert settled == [True, False, False, False, False]
    assert box.is_settled


def test_what_a_difference_brought_is_finished_as_a_whole() -> None:
    """Until everything in a slice is finished the slice would come again."""
    box: Box[str] = Box(0, 10)
    one, two = box.ticket(), box.ticket()
    box.jump(15)
    two.done()
    assert box.finished == 10
    one.done()
    assert box.finished == 15


def test_what_cannot_be_had_is_passed_over() -> None:
    """The box goes on where what is kept begins, and tells how much is lost; where nothing is kept it stays."""
    box: Box[str] = Box(0)
    assert (box.pass_over(), box.pts) == (0, None)
    box.jump(10)
    assert (box.pass_over(), box.pts) == (0, 10)
    box.take(15, 2, "b")
    box.take(16, 1, "c")
    assert (box.pass_over(), box.pts) == (3, 13)
    assert items(box.release()) == ["b", "c"]
    assert not box.has_gap


def test_an_overlap_is_handed_out_where_the_difference_cannot_be_had() -> None:
    """Its end is news that comes in no other way; what is old by then is dropped."""
    box: Box[str] = Box(0, 10)
    box.hold()
    for pts, count, item in ((11, 1, "old"), (14, 3, "news")):
        box.take(pts, count, item)
    box.jump(12)
    assert (box.pass_over(), box.pts) == (0, 11)
    assert items(box.release()) == ["news"]
    assert (box.pts, box.has_gap) == (14, False)


@given(st.data())
def test_each_once_and_in_order(data: st.DataObject) -> None:
    """Whatever is lost, doubled or out of order, with differences in between: each event once, in order."""
    counts = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=12))
    ends = [sum(counts[: n + 1]) for n in range(len(counts))]
    server = list(zip(ends, counts, range(len(counts)), strict=True))
    pushed = data.draw(st.lists(st.sampled_from(server), max_size=20))
    box: Box[int] = Box(0, 0)
    seen: list[int] = []
    unfinished: list[Ticket] = []

    def note(handed: list[tuple[int, Ticket]]) -> None:
        for n, ticket in handed:
            seen.append(n)
            unfinished.append(ticket)

    def difference(upto: int, during: list[tuple[int, int, int]]) -> None:
        """What is known at `upto` is brought; the rest of `during` is pushed meanwhile."""
        box.hold()
        for pts, count, n in during:
            note(box.take(pts, count, n))
        for pts, _, n in server:
            if box.pts is not None and box.pts < pts <= upto:
                seen.append(n)
        box.jump(max(upto, box.pts or 0))
        note(box.release())

    for event in pushed:
        if data.draw(st.booleans()):
            difference(data.draw(st.sampled_from(ends)), [event])
        else:
            note(box.take(*event))
        if data.draw(st.booleans()) and unfinished:
            unfinished.pop(data.draw(st.integers(0, len(unfinished) - 1))).done()
        assert box.finished == min((ticket.before for ticket in unfinished), default=box.pts)
    difference(ends[-1], [])
    assert seen == list(range(len(server)))
    assert not box.has_gap
