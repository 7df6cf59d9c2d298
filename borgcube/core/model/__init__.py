"""The records of the store: small Persistent classes and the tables that index them."""

from borgcube.core.model.accounts import AuditEntry, Link, Session, Token, User
from borgcube.core.model.fleet import Fleet, PlanStatus, RepositoryStatus, Standing
from borgcube.core.model.records import Archive, Client, Job, Plan, Record, Repository
from borgcube.core.model.table import Found, Table

__all__ = [
    "Archive", "AuditEntry", "Client", "Fleet", "Found", "Job", "Link", "Plan", "PlanStatus",
    "Record", "Repository", "RepositoryStatus", "Session", "Standing", "Table", "Token", "User",
]  # fmt: skip
