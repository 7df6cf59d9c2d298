"""The registry: registering, quarantine, isolation."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from types import SimpleNamespace

import pytest

from borgcube.core.errors import ConfigurationError
from borgcube.core.hookspecs import hookimpl
from borgcube.core.registry import Registry


class Transports:
    def __init__(self, *names):
        self.names = names

    @hookimpl
    def register_transports(self):
        return [SimpleNamespace(name=name) for name in self.names]


class Raising:
    @hookimpl
    def register_engines(self):
        raise RuntimeError("broken")

    @hookimpl
    def observe_event(self, event):
        raise AssertionError("a quarantined plugin was called")


class Observer:
    def __init__(self, fails=False):
        self.fails, self.seen = fails, []

    @hookimpl
    def observe_event(self, event):
        self.seen.append(event)
        if self.fails:
            raise RuntimeError


def test_no_plugin_at_all_is_fine():
    registry = Registry()
    assert registry.transports == {} and registry.may_start({}) is True
    registry.observe({"type": "x"})


def test_a_duplicate_quarantines_the_second_plugin_whole():
    registry = Registry()
    assert registry.add(Transports("a"), name="one")
    assert not registry.add(Transports("b", "a"), name="two", distribution="dist")
    assert list(registry.transports) == ["a"]
    (bad,) = registry.quarantined
    assert (bad.name, bad.distribution) == ("two", "dist") and "'a' is taken" in bad.error


def test_a_raising_plugin_is_set_aside_and_not_called_again():
    registry = Registry()
    assert not registry.add(Raising(), name="bad")
    registry.observe({"type": "x"})
    assert "broken" in registry.describe()["quarantined"][0]["error"]


def test_an_import_error_is_quarantined_and_a_required_plugin_stops():
    registry = Registry()
    point = EntryPoint("gone", "borgcube_no_such_module", "borgcube.plugins")
    assert not registry.add_entry_point(point)
    registry.require([])
    with pytest.raises(ConfigurationError, match="gone"):
        registry.require(["gone"])


def test_observers_are_isolated():
    registry, bad, good = Registry(), Observer(fails=True), Observer()
    registry.add(good, name="good")
    registry.add(bad, name="bad")
    registry.observe({"type": "x"})
    assert len(bad.seen) == len(good.seen) == 1


def test_an_exception_in_a_decision_refuses():
    class Decider:
        @hookimpl
        def may_start_job(self, job):
            return 1 / job["n"] > 0

    registry = Registry()
    registry.add(Decider(), name="decider")
    assert [registry.may_start({"n": n}) for n in (1, -1, 0)] == [True, False, False]
