"""Lines of the registration benchmark: what a method's revision and settings measured counts for that method alone."""

from types import SimpleNamespace

from comir_batch.bench.rows import Rows

WANTED = ("elastix", "raw", "both")


def setup(**revisions):
    ours = {"revisions": {"raw": 1, "both": 1, **revisions}, "register": {}}
    return SimpleNamespace(description={"side": 256}, ours=ours)


def row(*names):
    methods = {name: [1.0, 2.0] for name in names}
    return {"condition": "level-1", "number": 0, "methods": methods, "evidence": dict.fromkeys(methods)}


def test_a_method_of_another_revision_is_measured_anew_and_no_other_one(tmp_path):
    Rows(tmp_path, setup()).add([row(*WANTED)])
    assert Rows(tmp_path, setup()).missing("level-1", 0, WANTED) == ()
    later = Rows(tmp_path, setup(raw=2))
    assert later.missing("level-1", 0, WANTED) == ("raw",)
    assert set(later.done["level-1", 0]["evidence"]) == {"elastix", "both"}
    later.add([row("raw")])
    assert Rows(tmp_path, setup(raw=2)).missing("level-1", 0, WANTED) == ()
    assert Rows(tmp_path, setup()).missing("level-1", 0, WANTED) == ()  # what was measured before is still there


def test_fields_without_a_place_are_not_asked_for_again(tmp_path):
    Rows(tmp_path, setup()).add([{"condition": "level-1", "number": 3, "note": "no tissue"}])
    assert Rows(tmp_path, setup(raw=2)).missing("level-1", 3, WANTED) == ()
