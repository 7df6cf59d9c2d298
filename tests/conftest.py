"""Order: the files that take longest come first, so that several workers end together.

And choice: further variants of long tests run on their own, with ``bin/test -m long``.
"""

from __future__ import annotations

import pytest

LONGEST_FIRST = (
    "test_soak.py", "test_faults.py", "test_standstill.py", "test_clocks.py", "test_doctor.py",
    "test_deploy.py", "test_after_borgcube.py", "test_many.py", "test_hostile.py",
    "test_first_backup.py", "test_every_page.py", "test_refused_client.py", "test_prune.py",
    "test_partials.py", "test_kills.py", "test_matrix.py", "test_resumption.py", "test_api.py",
    "test_nonces.py", "test_settings.py", "test_limits.py",
)  # fmt: skip
# Another variant of each is in every run.
LONG = (
    "test_soak.py::test_nothing_is_lost_stuck_or_left_whatever_is_killed[20]",
    "test_hostile.py::test_a_chunk_referenced_without_end_stays_one_chunk[1000000]",
    "test_clocks.py::test_a_clock_that_is_off_is_a_warning_and_orders_nothing[10 min behind]",
    "test_clocks.py::test_a_clock_that_is_off_is_a_warning_and_orders_nothing[23 h ahead]",
    "test_clocks.py::test_a_clock_that_is_off_by_days_is_refused_with_what_to_do[behind]",
    "test_clocks.py::test_a_reread_reads_a_file_whose_change_was_hidden[ctime]",
    "test_standstill.py::test_no_client_is_silent_while_the_server_stands_still[gate]",
    "test_standstill.py::test_a_vault_that_hangs_is_noticed_and_named[stopped]",
    "test_standstill.py::test_a_job_of_a_vault_that_hangs_is_cancelled_in_seconds[disk]",
    "test_standstill.py::test_a_borg_that_is_killed_on_the_client_is_named_and_tried_again[15]",
    "test_check_ends.py::test_a_check_that_is_cut_short_leaves_nothing[hanging]",
    "test_check_ends.py::test_a_check_that_is_cut_short_leaves_nothing[daemon]",
    "test_quarantine.py::test_an_archive_is_mended_from_what_is_sound_of_it[no-mode]",
    "test_quarantine.py::test_an_archive_is_mended_from_what_is_sound_of_it[climbs]",
    # Each transport and each borg is in one of the others, as is each kind of key.
    "test_matrix.py::test_round_trip[openssh-bundled]",
    "test_matrix.py::test_round_trip[paramiko-debian]",
    "test_matrix.py::test_round_trip[local-debian]",
    "test_engine.py::test_nasty_tree_comes_back_identical[bundled-repokey]",
    "test_engine.py::test_nasty_tree_comes_back_identical[debian-repokey-blake2]",
    "test_engine.py::test_nasty_tree_comes_back_identical[debian-authenticated]",
    "test_nonces.py::test_no_nonce_is_used_twice_by_sessions_crashes_and_plain_borg[repokey]",
    "test_resumption.py::test_a_cut_connection_is_retried_and_uploads_only_what_is_missing[0.1]",
    "test_resumption.py::test_a_cut_connection_is_retried_and_uploads_only_what_is_missing[0.95]",
    "test_after_borgcube.py::test_every_command_of_plain_borg_works_without_a_word[fresh]",
    "test_after_borgcube.py::test_what_plain_borg_changed_is_noticed_and_backups_go_on[own]",
    *(
        f"test_honest_oddities.py::test_an_odd_tree_is_backed_up_as_stock_borg_does[{kind}-debian]"
        for kind in ("times", "owners", "names", "deep", "links", "sparse")
    ),
)
RANK = {name: number for number, name in enumerate(LONGEST_FIRST)}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put tests of long files first; otherwise the order stays. Mark those of ``LONG``."""
    for item in items:
        if item.nodeid.rpartition("/")[2] in LONG:
            item.add_marker("long")
    items.sort(key=lambda item: RANK.get(item.path.name, len(RANK)))
