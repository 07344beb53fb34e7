"""The cache of parsed expressions: what it keeps, what it counts, and who may share it."""

from __future__ import annotations

import os
import signal
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest

from fhirpath_otel import settings
from fhirpath_otel.errors import ExpressionSyntaxError
from fhirpath_otel.evaluator import parser
from fhirpath_otel.evaluator.parser import Limits, ParserCache, cached_parse


@pytest.fixture
def from_the_environment(monkeypatch):
    """Makes this process's cache anew, from these variables."""

    def renew(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(settings.PREFIX + name, value)
        settings.current.cache_clear()
        parser.shared_cache.cache_clear()

    yield renew
    settings.current.cache_clear()
    parser.shared_cache.cache_clear()


def test_the_second_time_gives_the_same_tree():
    cache = ParserCache()
    tree, hit = cache.parse("a.b")
    assert not hit
    assert cache.parse("a.b") == (tree, True)
    assert (cache.hits, cache.misses, cache.entries) == (1, 1, 1)


def test_what_was_asked_for_longest_ago_leaves_first():
    cache = ParserCache(max_entries=2)
    for text in ("a", "b", "a", "c"):
        cache.parse(text)
    assert cache.entries == 2
    assert [cache.parse(text)[1] for text in ("a", "c", "b")] == [True, True, False]


def test_bytes_are_bounded_and_return_as_trees_leave():
    cache = ParserCache(max_bytes=10_000)
    sizes = []
    for number in range(100):
        cache.parse(f"name.where(use = '{number:02}').family")
        sizes.append(cache.bytes)
    assert max(sizes) <= 10_000
    assert 1 < cache.entries < 100
    assert cache.bytes == cache.entries * sizes[0]


def test_a_text_that_is_too_large_is_parsed_and_displaces_nothing():
    cache = ParserCache(max_bytes=5_000)
    cache.parse("a")
    large = " | ".join(["a"] * 100)
    assert [cache.parse(large)[1], cache.parse(large)[1], cache.parse("a")[1]] == [False, False, True]
    assert cache.entries == 1


def test_no_entries_switch_the_cache_off():
    cache = ParserCache(max_entries=0)
    assert [cache.parse("a")[1], cache.parse("a")[1]] == [False, False]
    assert (cache.hits, cache.misses, cache.entries, cache.bytes) == (0, 2, 0, 0)


def test_errors_are_raised_each_time_and_take_no_room():
    cache = ParserCache()
    for _ in range(2):
        with pytest.raises(ExpressionSyntaxError):
            cache.parse("a..b")
    assert (cache.hits, cache.misses, cache.entries, cache.bytes) == (0, 2, 0, 0)


def test_the_limits_are_those_of_the_cache():
    with pytest.raises(ExpressionSyntaxError, match="MAX_EXPRESSION_DEPTH"):
        ParserCache(limits=Limits(depth=2)).parse("a.b.c")


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "Patient.name.where(use = 'official').family",
        "code in (" + " | ".join(f"'{number:05}'" for number in range(2_000)) + ")",
        "f(" + ",".join(["a+b"] * 2_000) + ")",
        "f(" + ",".join(["a[0]"] * 2_000) + ")",
        "f(" + ",".join(["1 'mg'"] * 2_000) + ")",
        "'" + "é" * 100_000 + "'",
        "`" + "x" * 100_000 + "`",
    ],
    ids=lambda text: text[:12],
)
def test_the_estimate_of_memory_is_not_below_what_a_tree_takes(text):
    ParserCache().parse(text)  # what is allocated once and for all
    cache = ParserCache()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        cache.parse(text)
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(text) < taken <= cache.bytes < 10 * taken + 1_000


def test_threads_that_share_a_cache_lose_no_count_and_get_the_right_trees():
    cache = ParserCache(max_entries=20)
    texts = [f"a{number}" for number in range(30)]

    def work(seed):
        for number in range(3_000):
            text = texts[(number * (2 * seed + 1)) % len(texts)]
            assert cache.parse(text)[0].name == text

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert cache.hits + cache.misses == 8 * 3_000
    assert cache.entries == 20
    assert cache.hits > 0
    for text in texts:
        cache.parse(text)
    one = ParserCache()
    one.parse("a10")
    assert cache.bytes == pytest.approx(20 * one.bytes, rel=0.05)


def test_two_threads_that_parse_the_same_text_at_once_keep_it_once(monkeypatch):
    cache, alone, parse = ParserCache(), ParserCache(), parser._parse
    alone.parse("a")

    def parse_while_another_thread_does(text, limits):
        monkeypatch.setattr(parser, "_parse", parse)
        cache.parse(text)
        return parse(text, limits)

    monkeypatch.setattr(parser, "_parse", parse_while_another_thread_does)
    cache.parse("a")
    assert (cache.misses, cache.entries, cache.bytes) == (2, 1, alone.bytes)


def test_the_cache_of_the_process_follows_its_settings(from_the_environment):
    from_the_environment(PARSER_CACHE_ENTRIES="1", MAX_EXPRESSION_DEPTH="2")
    assert not cached_parse("a")[1]
    assert cached_parse("a")[1]
    cached_parse("b")
    assert parser.shared_cache().entries == 1
    with pytest.raises(ExpressionSyntaxError, match="more than 2 levels"):
        cached_parse("a.b.c")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # threads of other tests
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_forked_while_the_lock_is_held_parses_all_the_same(from_the_environment):
    from_the_environment()
    cached_parse("a")
    with parser.shared_cache()._trees._lock:
        child = os.fork()
        if not child:
            signal.alarm(10)  # a deadlock would end it
            os._exit(0 if cached_parse("a")[1] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
