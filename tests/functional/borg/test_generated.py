"""Archives by a grammar: a real vault refuses each, or admits it and the judge is content."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from borgcube.testing.grammar.forge import MAX_MUTATIONS, all_mutations
from borgcube.testing.grammar.tried import Grounds

NAMES = sorted(all_mutations())
# More of them, for a longer look: `python -m borgcube.testing.grammar.tried --count N`.
SEEDS = 1


@pytest.fixture(scope="module")
def grounds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grounds]:
    with Grounds(tmp_path_factory.mktemp("grounds")) as grounds:
        yield grounds


def test_an_honest_archive_of_the_grammar_is_admitted(grounds: Grounds) -> None:
    for names in ([], ["an item cut anywhere"]):
        done = grounds.tries(random.Random(1), names)
        assert done.admitted and not done.findings, done


# A sixth of them here, each with the whole judge; what the readers say of every one of them is in
# the corpus of the fuzzer's target `agree`. All: BORGCUBE_TEST_MUTATIONS=1.
@pytest.mark.parametrize("name", NAMES[:: int(os.environ.get("BORGCUBE_TEST_MUTATIONS", "6"))])
def test_no_archive_harms(name: str, grounds: Grounds) -> None:
    for seed in range(SEEDS):
        done = grounds.tries(random.Random(f"{name} {seed}"), [name])
        assert not done.findings, (seed, done)


@pytest.mark.timeout(600)
def test_no_archive_with_several_faults_harms(grounds: Grounds) -> None:
    @settings(
        max_examples=8, deadline=None, database=None, derandomize=True,
        phases=(Phase.generate, Phase.shrink), suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(
        st.lists(st.sampled_from(NAMES), min_size=1, max_size=MAX_MUTATIONS),
        st.randoms(use_true_random=False, note_method_calls=False),
    )
    def check(names: list[str], rng: random.Random) -> None:
        done = grounds.tries(rng, names)
        assert not done.findings, done

    check()
