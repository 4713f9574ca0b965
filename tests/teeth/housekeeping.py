"""The guards of what housekeeping may remove."""

from tests.teeth.breakage import Breakage, Change

_DELETED = "tests/integration/test_housekeeping_deleted.py"
_RUNS = "tests/integration/test_housekeeping_runs.py"

HOUSEKEEPING_BREAKAGES = (
    Breakage(
        "keep-unfinished",
        "a deleted conversation is kept while a run of it has not ended",
        "it is removed under its run",
        (
            Change(
                "common/store/housekeeping.py",
                "where r.workspace_id = c.workspace_id and r.conversation_id = c.id and r.finished_at is null)",
                "where r.workspace_id = c.workspace_id and r.conversation_id = c.id and false)",
            ),
        ),
        (f"{_DELETED}::test_deleted_conversation_waits_for_its_run",),
    ),
    Breakage(
        "details-once",
        "the details of a run that has ended are emptied once, and nothing takes their place",
        "the trigger lets them be changed at any time",
        (
            Change(
                "migrations/0011_housekeeping.sql",
                "    if old.details_removed_at is null and new.details_removed_at is not null then\n"
                "        old.details_removed_at := new.details_removed_at;\n"
                "        old.instructions := '';\n",
                "    if true then\n"
                "        old.details_removed_at := new.details_removed_at;\n"
                "        old.instructions := new.instructions;\n",
            ),
        ),
        (f"{_RUNS}::test_run_that_has_ended_is_immutable_but_for_its_removal",),
    ),
)
