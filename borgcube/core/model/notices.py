"""Who is told what: channels, rules, incidents, and the queue and log of deliveries.

As in :mod:`borgcube.core.model.records`, every field is a class-level default. Secrets of a
channel are sealed together, tied to its name.
"""

from __future__ import annotations

from typing import Any

from borgcube.core.model.records import Record


class Channel(Record):
    """A way to reach somebody: a notifier with its options.

    ``secrets`` is the sealed JSON of its secret options. ``failures`` counts attempts that
    failed since the last that went well; ``not_before`` is when the next may be made.
    """

    PRIVATE = frozenset({"secrets"})
    PASSING = frozenset({"last_ok_at", "last_error_at", "last_error", "failures", "not_before"})
    name: str = ""
    notifier: str = ""
    options: dict[str, Any] = {}
    secrets: bytes = b""
    disabled: bool = False
    comment: str = ""
    last_ok_at: str = ""
    last_error_at: str = ""
    last_error: str = ""
    failures: int = 0
    not_before: str = ""


class Rule(Record):
    """Who is told of what, and when.

    It is about incidents whose ``kind`` matches one of ``kinds`` and whose severity is at
    least ``severity``, and about journalled events whose type matches one of ``events``; of
    the named clients, plans and repositories (patterns; none means all). With ``digest``
    (``daily`` or ``weekly``) it sends a letter instead.
    """

    PASSING = frozenset({"next_digest_at"})
    name: str = ""
    channel: str = ""
    kinds: tuple[str, ...] = ("*",)
    events: tuple[str, ...] = ()
    severity: str = "warning"
    clients: tuple[str, ...] = ()
    plans: tuple[str, ...] = ()
    repositories: tuple[str, ...] = ()
    group_s: int = 60
    remind_hours: int = 24
    all_clear: bool = True
    quiet_from: str = ""
    quiet_until: str = ""
    quiet_lets: str = "error"
    zone: str = "UTC"
    digest: str = ""
    digest_at: str = "07:00"
    digest_day: str = "monday"
    next_digest_at: str = ""
    disabled: bool = False
    comment: str = ""


class Incident(Record):
    """A problem, from when it was noticed until it is over.

    ``key`` says what it is about: there is at most one open incident of a key. ``told`` has,
    for each rule that was told, when it was told last. ``momentary`` ones are over when nothing
    more is heard of them for a while.
    """

    PRIVATE = frozenset({"told"})
    key: str = ""
    kind: str = ""
    severity: str = ""
    state: str = "open"
    client: str = ""
    plan: str = ""
    repository: str = ""
    job: str = ""
    title: str = ""
    message: str = ""
    next_step: str = ""
    count: int = 1
    last_at: str = ""
    closed_at: str = ""
    reason: str = ""
    momentary: bool = False
    acknowledged_by: str = ""
    acknowledged_at: str = ""
    told: dict[str, str] = {}


class Delivery(Record):
    """A message on its way, or what became of it.

    ``state`` is ``queued``, ``sending``, ``sent``, ``failed`` (given up) or ``withdrawn``
    (what it was about was over before it went out). ``key`` goes with every attempt, so that
    a receiver can tell a repetition. ``items`` are what it is about, and ``more`` how many it
    does not list; a letter or a test has its ``letter`` instead.
    """

    PRIVATE = frozenset({"letter"})
    key: str = ""
    state: str = "queued"
    kind: str = ""
    channel: str = ""
    rule: str = ""
    severity: str = "info"
    subject: str = ""
    items: tuple[dict[str, Any], ...] = ()
    more: int = 0
    letter: dict[str, Any] = {}
    due_at: str = ""
    attempts: int = 0
    tried_at: str = ""
    ended_at: str = ""
    error: str = ""
    receipt: str = ""
