"""Runs a program, crashes it between commits, and says in which ways its replays are not what they must be."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from tests.replay.model import Outcome, execute, replies_of, stream_of
from tests.replay.tight_programs import REPLAYED

if TYPE_CHECKING:
    from tests.replay.model import Commit, Program

DELAYS = (0, 0.0003, 0.0007)
"""Seconds of a commit; 0 is one turn of the loop: outcomes of two commits can meet in one cascade."""


def replay(
    program: Program, before: list[Commit], *, seed: int, delay: float, **loop: Any
) -> tuple[Outcome, list[str]]:
    """A replay from the history that ``before`` is, and what is wrong with it."""
    run = execute(program, seed=seed + REPLAYED, commits=before, delay=delay, **loop)
    recorded = {record.key for commit in before for record in commit.records if record.kind == "step"}
    again = [key for key, _ in run.trace.bodies if key in recorded]
    ended = [number for number, commit in enumerate(before, 1) if commit.continues]
    earlier = before[: max(ended, default=0)]  # what earlier iterations have left
    written, replied = stream_of(earlier) + run.trace.written, sorted(replies_of(earlier) + run.trace.replied)
    wrong = {
        "was handed another operation's outcome": run.trace.swapped,
        "ran recorded steps again": again,
        "ended as": [] if run.result.startswith("succeeded") else [run.result],
        "its stream is not what it wrote": [] if run.stream == written else [run.stream, written],
        "its replies are not what it replied": [] if run.replies == replied else [run.replies, replied],
    }
    where = f"after {len(before)} commits, seed {seed}, {delay} s a commit"
    return run, [f"{where}: {what}: {found}" for what, found in wrong.items() if found]


def replay_to_the_end(program: Program, run: Outcome, *, seed: int, delay: float, **loop: Any) -> list[str]:
    """What is wrong with a replay of all that ``run`` recorded: it must run nothing and end alike."""
    again, wrong = replay(program, run.recorded, seed=seed, delay=delay, **loop)
    if again.result != run.result:
        wrong.append(f"seed {seed}, {delay} s a commit: first {run.result}, then {again.result}")
    if again.trace.bodies:
        wrong.append(f"seed {seed}, {delay} s a commit: with all on record it ran {again.trace.bodies}")
    return wrong


def crash_everywhere(program: Program, *, seed: int, delay: float, **loop: Any) -> list[str]:
    """Crashes after each commit, on loops with that task factory, or with batches of that size."""
    live, wrong = replay(program, [], seed=seed - REPLAYED, delay=delay, **loop)
    for crash in range(1, len(live.commits)):
        wrong += replay(program, live.commits[:crash], seed=seed, delay=delay, **loop)[1]
    return wrong + replay_to_the_end(program, live, seed=seed, delay=delay, **loop)


def change_after_a_crash(before: Program, after: Program, *, seed: int) -> list[str]:
    """Crashes at a random moment, goes on with changed code, crashes once more: in which ways that is wrong."""
    chance = random.Random(seed)
    delay = chance.choice(DELAYS)
    live = execute(before, seed=seed, delay=delay)
    crash = chance.randint(1, len(live.commits) - 1)
    run, wrong = replay(after, live.commits[:crash], seed=seed, delay=delay)
    wrong += replay_to_the_end(after, run, seed=seed, delay=delay)
    again = chance.randint(crash, len(run.commits) - 1)
    run, found = replay(after, run.commits[:again], seed=seed + 1, delay=delay)
    return wrong + found + replay_to_the_end(after, run, seed=seed, delay=delay)


def crash_twice(program: Program, *, seed: int) -> list[str]:
    """Crashes at a random moment, and then once more, in the run that went on from there."""
    chance = random.Random(seed)
    delay = chance.choice(DELAYS)
    run, wrong = replay(program, [], seed=seed - REPLAYED, delay=delay)
    crash = 0
    for _ in range(2):
        crash = chance.randint(crash, len(run.commits) - 1)
        wrong += replay_to_the_end(program, run, seed=seed, delay=delay)
        run, found = replay(program, run.commits[:crash], seed=seed + crash, delay=delay)
        wrong += found
    return wrong + replay_to_the_end(program, run, seed=seed, delay=delay)
