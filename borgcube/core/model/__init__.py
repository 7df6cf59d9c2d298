"""The records of the store: small Persistent classes and the tables that index them."""

from borgcube.core.model.accounts import AuditEntry, Link, Session, Token, User
from borgcube.core.model.records import Archive, Client, Job, Plan, Record, Repository
from borgcube.core.model.table import Table

__all__ = [
    "Archive", "AuditEntry", "Client", "Job", "Link", "Plan", "Record", "Repository",
    "Session", "Table", "Token", "User",
]  # fmt: skip
