"""The registry: loads plugins, keeps what they registered, sets broken ones aside.

One registry per application object. It knows the names of hooks, never of plugins.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy

from borgcube.core import hookspecs
from borgcube.core.errors import ConfigurationError

GROUP = "borgcube.plugins"
LOG = logging.getLogger(__name__)
# Hook name -> the attribute that must be unique among what all plugins register.
UNIQUE = {
    "register_job_types": "name",
    "register_transports": "name",
    "register_engines": "name",
    "register_schedules": "name",
    "register_notifiers": "name",
    "register_executors": "name",
    "register_events": "TYPE",
    "register_evolution_steps": "id",
    "register_cli_commands": "name",
    "register_config_schema": "__name__",
    "register_pages": "name",
    "register_cards": "name",
    "register_tabs": "name",
    "register_endpoints": "name",
}


@dataclass(frozen=True)
class Quarantined:
    """A plugin that was set aside, and why."""

    name: str
    distribution: str
    error: str


class Registry:
    """Everything that plugins registered."""

    def __init__(self, *, hooks: Iterable[str] | None = None) -> None:
        """``hooks`` are those whose registrations are wanted; all by default."""
        self._wanted = None if hooks is None else frozenset(hooks)
        self.manager = pluggy.PluginManager(hookspecs.PROJECT)
        self.manager.add_hookspecs(hookspecs)
        self.registered: dict[str, dict[str, Any]] = {hook: {} for hook in UNIQUE}
        self.quarantined: list[Quarantined] = []
        self._distributions: dict[str, str] = {}
        self._owners: dict[tuple[str, str], str] = {}

    @classmethod
    def load(
        cls, *, disabled: Iterable[str] = (), required: Iterable[str] = (),
        only: Iterable[str] | None = None, hooks: Iterable[str] | None = None,
    ) -> Registry:  # fmt: skip
        """Load the installed plugins, or ``only`` those named; raises ConfigurationError when
        a required one fails. A process that needs few ``hooks`` names them: the others are
        not asked, and what they would import is not imported."""
        registry = cls(hooks=hooks)
        unwanted = set(disabled)
        wanted = None if only is None else set(only)
        for point in _sorted(entry_points(group=GROUP)):
            if point.name not in unwanted and (wanted is None or point.name in wanted):
                registry.add_entry_point(point)
        registry.require(required)
        return registry

    def add_entry_point(self, point: EntryPoint) -> bool:
        """Import and register one plugin; False when it was quarantined."""
        distribution = point.dist.name if point.dist else ""
        try:
            plugin = point.load()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            return self._quarantine(point.name, distribution, error)
        return self.add(plugin, name=point.name, distribution=distribution)

    def add(self, plugin: Any, *, name: str, distribution: str = "") -> bool:
        """Register a plugin object; False when it was quarantined."""
        try:
            # pluggy raises ValueError for a second plugin of the same name.
            self.manager.register(plugin, name=name)
        except Exception as error:
            return self._quarantine(name, distribution, error)
        try:
            # pluggy checks the names of parameters at registration, unknown hooks here.
            found = self._collect(plugin)
        except Exception as error:
            self.manager.unregister(plugin)
            return self._quarantine(name, distribution, error)
        for hook, values in found.items():
            self.registered[hook].update(values)
            self._owners.update({(hook, key): name for key in values})
        self._distributions[name] = distribution
        return True

    def _collect(self, plugin: Any) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for caller in self.manager.get_hookcallers(plugin) or ():
            if not caller.has_spec():
                raise ValueError(f"there is no hook {caller.name}")
            key = UNIQUE.get(caller.name)
            if key is None or not (self._wanted is None or caller.name in self._wanted):
                continue
            own = next(impl for impl in caller.get_hookimpls() if impl.plugin is plugin)
            values = found.setdefault(caller.name, {})
            instances: Any = own.function()
            for instance in instances or ():
                name = getattr(instance, key)
                if name in values or name in self.registered[caller.name]:
                    raise ValueError(f"{caller.name}: the name {name!r} is taken")
                values[name] = instance
        return found

    def require(self, names: Iterable[str]) -> None:
        """Raise ConfigurationError if one of the named plugins is not usable."""
        for name in names:
            if name not in self._distributions:
                why = next((q.error for q in self.quarantined if q.name == name), "not installed")
                raise ConfigurationError(
                    f"The required plugin {name} cannot be used: {why}.",
                    next_step="Mend it, or take it out of plugins.required in borgcube.toml.",
                )

    def _quarantine(self, name: str, distribution: str, error: BaseException) -> bool:
        text = f"{type(error).__name__}: {error}"
        LOG.error("plugin %s (%s) is quarantined: %s", name, distribution, text)
        self.quarantined.append(Quarantined(name, distribution, text))
        return False

    @property
    def job_types(self) -> Mapping[str, Any]:
        """Job types by name."""
        return self.registered["register_job_types"]

    @property
    def transports(self) -> Mapping[str, Any]:
        """Transports by name."""
        return self.registered["register_transports"]

    @property
    def engines(self) -> Mapping[str, Any]:
        """Engines by name."""
        return self.registered["register_engines"]

    @property
    def endpoints(self) -> Mapping[str, Any]:
        """Endpoints of the API by name."""
        return self.registered["register_endpoints"]

    @property
    def notifiers(self) -> Mapping[str, Any]:
        """Notifiers by name."""
        return self.registered["register_notifiers"]

    def owner_of(self, hook: str, key: str) -> str:
        """Return the plugin that registered ``key`` with ``hook``; raises ``KeyError``."""
        return self._owners[hook, key]

    @property
    def schedules(self) -> Mapping[str, Any]:
        """Kinds of schedules by name."""
        return self.registered["register_schedules"]

    def may_start(self, job: dict[str, Any]) -> bool:
        """Ask the decide hook; an exception refuses."""
        try:
            answer = self.manager.hook.may_start_job(job=job)
        except Exception:
            LOG.exception("may_start_job raised; job %s stays queued", job.get("id"))
            return False
        return answer is not False

    def observe(self, event: dict[str, Any]) -> None:
        """Tell every observer, each on its own; exceptions are logged."""
        for impl in self.manager.hook.observe_event.get_hookimpls():
            try:
                impl.function(*(event for _ in impl.argnames))
            except Exception:
                LOG.exception("plugin %s failed on event %s", impl.plugin_name, event["type"])

    def describe(self) -> dict[str, Any]:
        """Return plain data: loaded plugins with their hooks, and the quarantined."""
        loaded = []
        for name, distribution in sorted(self._distributions.items()):
            callers = self.manager.get_hookcallers(self.manager.get_plugin(name)) or ()
            hooks = sorted(caller.name for caller in callers)
            loaded.append({"name": name, "distribution": distribution, "hooks": hooks})
        return {"plugins": loaded, "quarantined": [asdict(q) for q in self.quarantined]}


def _sorted(points: Iterable[EntryPoint]) -> list[EntryPoint]:
    """Return entry points once each, in a stable order, so that a duplicate name always
    quarantines the same plugin."""
    unique = {(p.name, p.value, p.dist.name if p.dist else ""): p for p in points}
    return [unique[key] for key in sorted(unique)]
