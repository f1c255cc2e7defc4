"""The smoke test of an installation tells one that works from one that does not."""

import pytest

from comir_batch.bench import smoke
from comir_batch.bench.known_motion import Errors


@pytest.mark.slow
def test_a_working_installation_passes(capsys):
    smoke.main()
    assert capsys.readouterr().out.startswith("smoke test passed: median ")


def test_a_run_that_fails_ends_in_one_line(monkeypatch):
    monkeypatch.setitem(smoke._SETTINGS, "model", "missing")
    with pytest.raises(SystemExit) as ended:
        smoke.main()
    assert ended.value.code.startswith("smoke test failed: ")
    assert "missing" in ended.value.code
    assert "\n" not in ended.value.code


def test_an_error_above_the_bound_fails():
    smoke.check(Errors(smoke.WORST_MEDIAN_UM, 99.0, 99.0))
    with pytest.raises(smoke.TaskError, match=r"median 3\.10 µm"):
        smoke.check(Errors(3.1, 3.2, 3.3))
