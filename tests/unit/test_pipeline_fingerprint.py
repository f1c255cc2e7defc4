"""Fingerprints: what a result depends on changes them, what it does not depend on leaves them."""

from __future__ import annotations

import pytest

import comir_batch
from comir_batch.core.config import ChunkConfig, RegisterConfig
from comir_batch.pipeline import fingerprint as module
from comir_batch.pipeline.fingerprint import REVISIONS, fingerprint

SETTINGS = {"section": {"shard": 1024, "chunk": 256}, "image": [0, "", 0.5, 0.5]}


def test_the_same_content_has_had_this_name_since_the_first_release():
    """If this fails, all finished work is done again; where results change, raise a revision instead."""
    assert fingerprint("chunk", SETTINGS, ["a" * 64]) == "ecfbfab067bb8388"
    assert set(REVISIONS) == {"chunk", "represent", "register", "judge", "warp", "export", "report"}


def test_the_order_of_settings_does_not_matter_and_that_of_inputs_does():
    assert fingerprint("chunk", dict(reversed(SETTINGS.items())), ["a"]) == fingerprint("chunk", SETTINGS, ["a"])
    assert fingerprint("chunk", SETTINGS, ["a", "b"]) != fingerprint("chunk", SETTINGS, ["b", "a"])


def test_settings_inputs_stage_and_revision_each_count(monkeypatch):
    first = fingerprint("chunk", SETTINGS, ["a"])
    others = [
        fingerprint("chunk", SETTINGS | {"image": [0, "", 0.5, 0.25]}, ["a"]),
        fingerprint("chunk", SETTINGS, ["b"]),
        fingerprint("warp", SETTINGS, ["a"]),
    ]
    monkeypatch.setitem(module.REVISIONS, "chunk", REVISIONS["chunk"] + 1)
    others.append(fingerprint("chunk", SETTINGS, ["a"]))
    assert len({first, *others}) == 5


def test_a_section_counts_by_its_values():
    same = [fingerprint("register", {"section": RegisterConfig(seed=seed)}, []) for seed in (1, 1, 2)]
    assert same[0] == same[1] != same[2]
    plain = RegisterConfig().model_dump(mode="json")
    assert fingerprint("register", {"section": plain}, []) == fingerprint("register", {"section": RegisterConfig()}, [])


def test_the_program_s_version_does_not_count(monkeypatch):
    before = fingerprint("chunk", SETTINGS, [])
    monkeypatch.setattr(comir_batch, "__version__", "99.0")
    assert fingerprint("chunk", SETTINGS, []) == before


@pytest.mark.parametrize("value", [object(), {1, 2}, float("nan")])
def test_what_has_no_lasting_text_is_refused(value):
    with pytest.raises((TypeError, ValueError)):
        fingerprint("chunk", {"section": ChunkConfig(), "more": value}, [])
