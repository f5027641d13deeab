"""What the benchmark of other systems concludes from what it sees."""

from __future__ import annotations

import pytest
from benchmarks.peers import median, summary
from benchmarks.peers_children.hashing import Hashing
from benchmarks.peers_table import tables
from benchmarks.peers_world import Damage, damage, is_noticed, rendered
from benchmarks.profiles import profile

from undrift.embedders.hashing import HashingEmbedder

WANTED = {"1/skill:a": "Go", "1/skill:b": "SQL", "2/skill:a": "Go"}


def test_a_table_that_is_what_it_should_be_has_no_damage() -> None:
    assert damage(WANTED, WANTED.items()).is_none


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"1/skill:a": "Go", "1/skill:b": "SQL"}, Damage(1, 0, 0)),
        (WANTED | {"3/skill:a": "Go"}, Damage(0, 1, 0)),
        (WANTED | {"2/skill:a": "C"}, Damage(0, 0, 1)),
        ({}, Damage(3, 0, 0)),
        ({"1/skill:b": "Go", "4/skill:a": "Go"}, Damage(2, 1, 1)),
    ],
)
def test_each_damage_is_counted_as_what_it_is(found: dict[str, str], expected: Damage) -> None:
    assert damage(WANTED, found.items()) == expected
    assert not expected.is_none


def test_a_second_record_of_one_text_is_one_too_many() -> None:
    assert damage(WANTED, [*WANTED.items(), ("1/skill:a", "Go")]) == Damage(0, 1, 0)


def test_a_run_that_tells_of_nothing_has_noticed_nothing() -> None:
    assert not is_noticed({"added": 0, "skipped": 9}, {"skipped": 9})
    assert is_noticed({"added": 1, "skipped": 9}, {"skipped": 9})
    assert is_noticed({"added": 0, "skipped": 8}, {"skipped": 9})
    assert is_noticed({}, {"skipped": 9})


def test_all_systems_embed_alike() -> None:
    """Vector for vector; and every text is counted."""
    texts = [text.text for text in rendered({owner: profile(owner) for owner in range(60)})]
    texts += ["", "!?", "żółć naïve", "a a a"]
    other = Hashing()
    assert (other.embed(texts) == HashingEmbedder().embed(texts)).all()
    assert other.texts == len(texts) > 600


def test_the_median_of_what_was_measured_is_kept_and_what_was_concluded_must_agree() -> None:
    rounds = [{"seconds": second, "repaired": True} for second in (3.0, 1.0, 2.0)]
    assert median(rounds) == {"seconds": 2.0, "repaired": True}
    rounds[1]["repaired"] = False
    with pytest.raises(AssertionError, match="repaired varies"):
        median(rounds)


def _step(seconds: float, *, noticed: bool = True, repaired: bool = True) -> dict[str, object]:
    figures = dict.fromkeys(("cpu_seconds", "server_cpu_seconds", "peak_mb"), 1.0)
    verdict = {"noticed": noticed, "repaired": repaired, "embedded": 100}
    return {"seconds": seconds, **figures, **verdict}


def test_a_repair_is_told_with_what_was_needed_for_it() -> None:
    usual = ("initial", "no-op", "one change", "100 stale", "100 lost", "one ghost")
    own = {name: _step(1.0) for name in (*usual, "no-op, check", "no-op, first check")}
    other = {name: _step(4.0) for name in usual}
    other["100 lost"] = _step(2.0, noticed=False, repaired=False)
    other["100 lost, repair"] = _step(8.0)
    other["one ghost"] = _step(2.0, noticed=False, repaired=False)
    systems = {"undrift": own, "Other": other}
    result = summary([systems])
    lines = tables(result)["verdicts"].splitlines()
    assert lines[0] == "|  | undrift | Other |"
    assert lines[-2].endswith(
        "| repaired, 100 embeddings | not noticed; by *repair*, 100 embeddings |"
    )
    assert lines[-1].endswith("| repaired, 100 embeddings | not noticed |")
    times = {name: ratio["seconds"] for name, ratio in result["ratios"]["Other"].items()}
    assert times == {
        "initial": 4.0,
        "no-op": 4.0,
        "no-op, check": 4.0,
        "no-op, first check": 4.0,
        "100 lost": 8.0,
    }


def test_a_ratio_compares_what_was_run_in_the_same_round() -> None:
    """The second round was twice as slow for everybody."""

    def round_of(seconds: float, other: float) -> dict[str, dict[str, dict[str, object]]]:
        names = ("initial", "no-op", "no-op, check", "no-op, first check", "100 lost")
        return {
            "undrift": {name: _step(seconds) for name in names},
            "Other": {name: _step(other) for name in names},
        }

    found = summary([round_of(1.0, 3.0), round_of(2.0, 6.0), round_of(1.0, 30.0)])
    assert found["ratios"]["Other"]["initial"] == {"seconds": 3.0, "cpu": 1.0}
    assert found["systems"]["Other"]["initial"]["seconds"] == 6.0
