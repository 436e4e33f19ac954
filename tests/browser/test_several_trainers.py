"""Three trainings of one workflow, each on its own node, from two pictures to the merge."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from sandbox.paths import ROOT
from sandbox.server import ComfyServer

from .pages import (
    MISSING,
    OVERRIDE,
    RUN_MS,
    SET_VUE,
    chart_of,
    contains,
    drop,
    look_at,
    override,
    panel,
    report,
    run,
    shoot,
)

FROM_SCRATCH = ROOT / "workflows" / "05 Subject in style from images.json"
STEPS = {"Train the subject": 5, "Train the style": 4, "Learn the merge": 3}


@pytest.mark.thorough
def test_each_of_three_trainings_is_shown_on_its_own_node(page: Page, server: ComfyServer) -> None:
    server.free()
    page.evaluate(SET_VUE, False)
    drop(page, FROM_SCRATCH)
    assert page.evaluate(MISSING) == []
    override(page, {title: {"steps": steps} for title, steps in STEPS.items()})
    page.evaluate(OVERRIDE, {"Learn the merge": {"solver": "adam"}, "KSampler": {"steps": 1}})
    run(page)
    look_at(page, "Learn the merge")
    merged = report(page, "Learn the merge")
    expect(merged).to_have_value(contains("3 of 3 steps"), timeout=RUN_MS)
    seen = set()
    for title, steps in STEPS.items():
        look_at(page, title)
        shown = panel(page, f"Training of {title}")
        expect(shown).to_contain_text(f"step {steps} of {steps}")
        expect(shown).to_contain_text("Finished")
        label = chart_of(shown).get_attribute("aria-label") or ""
        assert f"step {steps}:" in label
        seen.add(label)
    assert len(seen) == len(STEPS)
    shoot(page, "several_trainers")
    page.evaluate(SET_VUE, True)
    for title, steps in STEPS.items():
        shown = panel(page, f"Training of {title}")
        expect(shown).to_contain_text(f"step {steps} of {steps}")
    shoot(page, "several_trainers_vue")
    page.evaluate(SET_VUE, False)
