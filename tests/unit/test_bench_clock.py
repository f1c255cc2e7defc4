"""Seconds of both processes add up, also where elastix' is started anew meanwhile."""

from comir_batch.bench.ours import _Moment


def test_both_processes_count():
    assert _Moment(5.0, 7, 40.0).since(_Moment(3.0, 7, 30.0)) == 12.0


def test_a_process_that_began_meanwhile_counts_from_nothing():
    assert _Moment(5.0, 8, 4.0).since(_Moment(3.0, 7, 30.0)) == 6.0
    assert _Moment(5.0, 8, 4.0).since(_Moment(3.0, None, 0.0)) == 6.0
    assert _Moment(5.0, None, 0.0).since(_Moment(3.0, 7, 30.0)) == 2.0
