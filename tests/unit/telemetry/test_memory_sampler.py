"""The memory of long evaluations: with a clock and sizes of the test's own, and with real threads."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from fhirpath_otel.telemetry import memory_sampler
from fhirpath_otel.telemetry.database_memory import DatabaseMemory, InUse
from fhirpath_otel.telemetry.evaluation import Evaluation
from fhirpath_otel.telemetry.memory_sampler import LINGER_SECONDS, LONGEST_SECONDS, MemorySampler
from fhirpath_otel.telemetry.redaction import template_from

MS = 1_000_000
SECOND = 1_000 * MS


class World:
    """A clock, the size of the process, and a sampler whose steps the test takes."""

    def __init__(self, only_peaks: bool = False, **options) -> None:
        self.now_ns = 1
        self.size: int | None = 100
        self.lost: list[tuple[str, str]] = []
        self.resident = SimpleNamespace(read=lambda: self.size, only_peaks=only_peaks)
        options.setdefault("start_threads", False)
        self.sampler = MemorySampler(
            self.resident, lambda *what: self.lost.append(what), clock=lambda: self.now_ns, **options
        )

    def begin(self, expected: bool = True, database: DatabaseMemory | None = None) -> Evaluation:
        evaluation = Evaluation()
        evaluation.template = template_from("Patient.name")
        evaluation.database_memory = database
        evaluation.start_ns = self.now_ns
        self.sampler.begin(evaluation, expected)
        return evaluation

    def end(self, evaluation: Evaluation) -> Evaluation:
        evaluation.duration_ns = self.now_ns - evaluation.start_ns
        self.sampler.end(evaluation)
        return evaluation

    def sample(self, after_ms: float, size: int | None) -> float | None:
        self.now_ns += round(after_ms * MS)
        self.size = size
        return self.sampler.sample()


def figures(evaluation: Evaluation) -> tuple[int | None, int | None]:
    return evaluation.rss_delta, evaluation.rss_peak


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "fhirpath-otel-memory"]


def test_a_long_evaluation_has_delta_and_peak():
    world = World()
    evaluation = world.begin()
    world.sample(60, 900)
    world.sample(10, 400)
    world.size = 300
    assert figures(world.end(evaluation)) == (200, 900)
    assert evaluation.rss_start == 100


def test_the_peak_may_be_the_end_and_the_delta_negative():
    world = World()
    evaluation = world.begin()
    world.now_ns += 50 * MS
    world.size = 150
    assert figures(world.end(evaluation)) == (50, 150)
    evaluation = world.begin()
    world.now_ns += 50 * MS
    world.size = 40
    assert figures(world.end(evaluation)) == (-110, 150)


def test_a_short_evaluation_has_no_figures():
    world = World()
    evaluation = world.begin()
    world.now_ns += 50 * MS - 1
    assert figures(world.end(evaluation)) == (None, None)
    assert not world.sampler._running


def test_one_that_was_not_expected_to_take_long_has_none_and_the_next_one_has():
    world = World()
    world.end(world.begin())
    evaluation = world.begin(world.sampler.expects_long(world.begin(False)))
    world.now_ns += 60 * MS
    assert figures(world.end(evaluation)) == (None, None)
    evaluation = world.begin(world.sampler.expects_long(evaluation))
    world.now_ns += 60 * MS
    assert figures(world.end(evaluation)) == (0, 100)


def test_growth_adds_up_over_evaluations_of_one_expression():
    world = World()
    growths = []
    for _ in range(3):
        evaluation = world.begin()
        world.now_ns += 60 * MS
        world.size += 7
        growths.append(world.end(evaluation).rss_growth)
    assert growths == [None, 14, 21]


def test_the_time_of_the_consumer_makes_no_evaluation_long():
    world = World()
    evaluation = world.begin()
    world.now_ns += 60 * MS
    evaluation.duration_ns = 10 * MS
    world.sampler.end(evaluation)
    assert figures(evaluation) == (None, None)


def test_nothing_is_read_until_the_oldest_has_run_50_ms():
    world = World()
    world.begin(False)
    kept = world.begin()
    world.resident.read = None  # Would raise.
    assert world.sampler.sample() == 0.05
    world.now_ns += 20 * MS
    later = world.begin(False)
    assert world.sampler.sample() == pytest.approx(0.03)
    assert kept.memory_track is not None
    assert later.memory_track is None


def test_what_runs_for_long_is_looked_at_less_often():
    world = World()
    kept = world.begin()
    assert [world.sample(ms, 100) for ms in (60, 1_940, 60_000)] == [0.01, 0.02, 0.05]
    assert figures(world.end(kept)) == (0, 100)


def test_after_the_last_candidate_the_thread_lingers_and_ends():
    world = World()
    evaluation = world.begin()
    world.now_ns += 60 * MS
    world.end(evaluation)
    assert world.sample(0, 100) == 0.05
    assert world.sample(LINGER_SECONDS * 1_000 - 1, 100) == 0.05
    assert world.sample(1, 100) is None


def test_a_candidate_ends_the_lingering():
    world = World()
    assert world.sample(0, 100) == 0.05
    evaluation = world.begin()
    assert world.sample(LINGER_SECONDS * 1_000, 100) == 0.01
    world.end(evaluation)
    assert world.sample(0, 100) == 0.05


def test_a_candidate_that_begins_while_the_thread_is_about_to_end_keeps_it():
    world = World()
    world.sample(0, 100)
    kept = world.begin()
    assert world.sampler._lingers(world.now_ns + SECOND)
    assert kept.memory_track is not None


def test_an_abandoned_evaluation_is_forgotten_when_it_is_gone():
    world = World()
    world.begin()
    gc.collect()
    assert world.sample(60, 100) == 0.05
    assert not world.sampler._running


def test_one_that_never_ends_is_let_go_of():
    world = World()
    evaluation = world.begin()
    assert world.sample(LONGEST_SECONDS * 1_000, 100) == 0.05
    assert world.sampler._running
    assert world.sample(1, 100) == 0.05
    assert not world.sampler._running
    assert figures(world.end(evaluation)) == (None, None)


def test_candidates_are_bounded_and_the_loss_is_counted(monkeypatch):
    monkeypatch.setattr(memory_sampler, "MOST_CANDIDATES", 2)
    world = World()
    running = [world.begin() for _ in range(3)]
    world.now_ns += 60 * MS
    assert [figures(world.end(evaluation)) for evaluation in running] == [(0, 100), (0, 100), (None, None)]
    assert world.lost == [("memory", "limit")]


def test_where_only_peaks_are_known_the_peak_is_told_if_it_is_this_evaluation_s():
    world = World(only_peaks=True)
    evaluation = world.begin()
    world.now_ns += 60 * MS
    assert figures(world.end(evaluation)) == (None, None)
    evaluation = world.begin()
    world.now_ns += 60 * MS
    world.size = 130
    assert figures(world.end(evaluation)) == (None, 130)
    assert evaluation.rss_start is None


def test_where_the_size_cannot_be_read_there_are_no_figures():
    world = World()
    world.size = None
    evaluation = world.begin()
    world.now_ns += 60 * MS
    assert figures(world.end(evaluation)) == (None, None)
    world.size = 100
    evaluation = world.begin()
    assert world.sample(60, None) == 0.01
    assert figures(world.end(evaluation)) == (None, None)
    assert world.lost == []


def test_what_fails_inside_is_counted_and_said_once(caplog):
    world = World()
    evaluation = world.begin()
    world.now_ns += 60 * MS
    world.resident.read = None
    world.end(evaluation)
    world.begin()
    assert world.lost == [("memory", "internal_error")] * 2
    [record] = caplog.records
    assert "TypeError" in record.getMessage()


# --- databases


class Engine:
    """A database whose figures the test sets."""

    def __init__(self, world: World) -> None:
        self.figures = InUse(10, 0)
        self.asked: list[int] = []
        self.world = world
        self.memory = DatabaseMemory("duckdb", id(self), self.read, lambda: world.now_ns)

    def read(self) -> InUse:
        self.asked.append(self.world.now_ns // MS)
        return self.figures


def test_the_database_is_asked_at_50_ms_and_every_50_ms_for_its_peaks():
    world = World()
    engine = Engine(world)
    evaluation = world.begin(database=engine.memory)
    for ms, in_use in ((40, InUse(999, 999)), (10, InUse(10, 5)), (20, InUse(999, 999)), (40, InUse(30, 2))):
        engine.figures = in_use
        world.sample(ms, 100)
    world.end(evaluation)
    assert engine.asked == [50, 110]
    assert (evaluation.database_memory_peak, evaluation.database_temp_peak) == (30, 5)


def test_figures_from_before_an_evaluation_are_not_its():
    world = World()
    asked, other = Engine(world), Engine(world)
    asked.memory.in_use(0)
    running = [world.begin(database=engine.memory) for engine in (asked, other)]
    world.sample(60, 100)
    assert [world.end(evaluation).database_memory_peak for evaluation in running] == [None, 10]


def test_several_databases_are_asked_in_turns():
    world = World()
    engines = [Engine(world), Engine(world)]
    running = [world.begin(database=engine.memory) for engine in engines]
    for _ in range(30):
        world.sample(10, 100)
    asked = sorted(engines[0].asked + engines[1].asked)
    assert len(asked) <= 300 / 50
    assert all(len(engine.asked) >= 2 for engine in engines)
    assert all(world.end(evaluation).database_memory_peak == 10 for evaluation in running)


def test_a_database_that_fails_costs_its_figures_only():
    world = World()
    engine = Engine(world)
    engine.figures = None
    memory = DatabaseMemory("duckdb", 1, lambda: 1 // 0, lambda: world.now_ns)
    evaluation = world.begin(database=memory)
    world.sample(60, 120)
    assert figures(world.end(evaluation)) == (20, 120)
    assert evaluation.database_memory_peak is None
    assert world.lost == []


# --- the thread


@pytest.fixture
def running():
    """Real samplers, which are closed at the end."""
    made = []

    def make(**options) -> World:
        world = World(start_threads=True, **options)
        made.append(world.sampler)
        return world

    yield make
    for sampler in made:
        sampler.close()


def test_one_thread_watches_all_and_only_while_something_may_take_long(running):
    world = running()
    world.begin(False)
    assert threads() == []
    kept = [world.begin() for _ in range(5)]
    [thread] = threads()
    assert thread.daemon
    for evaluation in kept:
        world.end(evaluation)
    world.now_ns += 10 * SECOND
    world.sampler.sample()
    world.now_ns += 10 * SECOND
    thread.join(10)
    assert threads() == []
    kept = [world.begin()]
    assert len(threads()) == 1


def test_the_thread_sees_the_peak(running):
    world = running()
    seen = threading.Event()
    sizes = iter([100, 900])

    def read() -> int:
        size = next(sizes, 300)
        if size == 300:
            seen.set()
        return size

    world.resident.read = read
    evaluation = world.begin()
    world.now_ns += 60 * MS
    assert seen.wait(10)
    assert figures(world.end(evaluation)) == (200, 900)


def test_a_thread_that_fails_is_counted_and_followed_by_another(running, caplog):
    world = running()
    world.now_ns += 60 * MS
    evaluation = world.begin()
    [thread] = threads()
    world.resident.read = None
    world.now_ns += 60 * MS
    thread.join(10)
    assert ("memory", "internal_error") in world.lost
    world.resident.read = lambda: 100
    other = world.begin()
    assert len(threads()) == 1
    world.now_ns += 60 * MS
    assert figures(world.end(evaluation)) == figures(world.end(other)) == (0, 100)


def test_after_the_close_nothing_starts(running):
    world = running()
    kept = world.begin()
    world.sampler.close()
    assert threads() == []
    assert world.begin().memory_track is None
    world.now_ns += 60 * MS
    assert figures(world.end(kept)) == (0, 100)


def test_where_no_thread_can_start_there_are_no_figures(running, monkeypatch):
    def refuse(_):
        raise RuntimeError("can't start new thread at interpreter shutdown")

    world = running()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    evaluation = world.begin()
    world.now_ns += 60 * MS
    assert figures(world.end(evaluation)) == (None, None)
    assert not world.sampler._running
    assert world.lost == []


def test_many_threads_begin_and_end_at_once(running):
    world = running()
    barrier = threading.Barrier(8)

    def work() -> None:
        barrier.wait()
        for _ in range(200):
            evaluation = world.begin()
            evaluation.duration_ns = 60 * MS
            world.sampler.end(evaluation)
            assert figures(evaluation) == (0, 100)

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    assert len(threads()) <= 1
    for worker in workers:
        worker.join()
    assert not world.sampler._running
    assert world.lost == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_has_no_thread_and_watches_its_own(running):
    world = running()
    inherited = world.begin()
    world.now_ns += 60 * MS
    with world.sampler._lock:
        child = os.fork()
        if child == 0:
            quiet = threads() == [] and figures(world.end(inherited)) == (None, None)
            own = world.begin()
            started = len(threads()) == 1
            world.now_ns += 60 * MS
            world.end(own)
            os._exit(0 if quiet and started and figures(own) == (0, 100) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert figures(world.end(inherited)) == (0, 100)


EXIT = """
import atexit
from fhirpath_otel.telemetry.evaluation import Evaluation
from fhirpath_otel.telemetry.memory_sampler import MemorySampler
from fhirpath_otel.telemetry.resident_memory import ResidentMemory

def late():
    sampler.begin(Evaluation(), True)
    print("ended")

atexit.register(late)
sampler = MemorySampler(ResidentMemory())
kept = Evaluation()
sampler.begin(kept, True)
class Last:
    def __del__(self):
        sampler.begin(Evaluation(), True)
last = Last()
last.itself = last
"""


def test_an_interpreter_exits_with_candidates_that_run():
    done = subprocess.run(
        [sys.executable, "-c", EXIT], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended\n", "")
