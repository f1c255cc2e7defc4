"""A person's decision on a page that stands already, or is just being made."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from comir_batch.report.pages import render

if TYPE_CHECKING:
    from comir_batch.core.verdict import Verdict


class DecisionText(NamedTuple):
    """What was decided, and a sentence that says by whom, when and why."""

    verdict: Verdict
    sentence: str


def with_decision(page: str, pair_id: str, decision: DecisionText | None) -> str:
    """Return a page, of a pair or of a batch, with the decision on a pair in the place that is kept for it.

    Parameters
    ----------
    page : str
        HTML of `pair_page` or `batch_page`; it may show another decision already.
    pair_id : str
        Whose place; a page that has none stays as it is.
    decision : DecisionText or None
        None clears the place.
    """
    content = render("decision.html.j2", decision=decision) if decision else ""
    place = re.compile(rf'(<div class="decision" data-pair="{re.escape(pair_id)}">).*?(?=</div>)', re.DOTALL)
    return place.sub(lambda found: found[1] + content, page)
