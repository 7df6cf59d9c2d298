"""The records of the store: small Persistent classes and the tables that index them."""

from borgcube.core.model.accounts import AuditEntry, Link, Session, Token, User
from borgcube.core.model.fleet import Fleet, PlanStatus, RepositoryStatus, Standing
from borgcube.core.model.notices import Channel, Delivery, Incident, Rule
from borgcube.core.model.records import Archive, Client, Drill, Job, Plan, Proof, Record, Repository
from borgcube.core.model.retention import RetentionPolicy
from borgcube.core.model.scheduling import Entry, Pause, Schedule, Task, Timetable, Trigger
from borgcube.core.model.table import Found, Table

__all__ = [
    "Archive", "AuditEntry", "Channel", "Client", "Delivery", "Drill", "Entry", "Fleet", "Found",
    "Incident", "Job", "Link", "Pause", "Plan", "PlanStatus", "Proof", "Record", "Repository",
    "RepositoryStatus", "RetentionPolicy", "Rule", "Schedule", "Session", "Standing", "Table",
    "Task", "Timetable", "Token", "Trigger", "User",
]  # fmt: skip
