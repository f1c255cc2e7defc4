"""Blocks that go to a worker together."""

from __future__ import annotations

import pytest

from comir_batch.core.block import BlockPlan
from comir_batch.pipeline.batches import batch_count, batch_size, batches


@pytest.mark.parametrize("size", [1, 3, 8, 100])
def test_every_block_is_in_one_batch_in_its_order(size):
    blocks = [(number, region) for number, region in enumerate(BlockPlan(700, 500, 128)) if number % 5]
    made = list(batches(blocks, size))
    assert [region for batch in made for region in batch.regions] == [region for _, region in blocks]
    assert len(made) == batch_count(len(blocks), size)
    assert max(len(batch.regions) for batch in made) <= size


def test_batches_of_other_blocks_have_other_names():
    blocks = list(enumerate(BlockPlan(700, 500, 128)))
    made = [batch for size in (1, 2, 5) for batch in batches(blocks, size)]
    assert len({batch.name for batch in made}) == len(set(made))
    assert list(batches(blocks, 5))[1].name == "b5_9"


def test_a_task_has_some_megabytes_or_one_block():
    assert batch_size(1.0) == 64
    assert batch_size(12.6) == 5
    assert batch_size(200.0) == 1
    assert batch_count(0, 4) == 0
