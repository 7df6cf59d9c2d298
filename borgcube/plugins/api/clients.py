"""The API about clients: the machines that are backed up."""

from __future__ import annotations

from typing import Any

from borgcube.core.access import Permission
from borgcube.core.api import Answer, Call, Endpoint, Listing, named
from borgcube.core.errors import BorgCubeError
from borgcube.core.model import Client
from borgcube.core.openapi import page_query
from borgcube.core.schemas import (
    NAME,
    NO_NAME,
    fields_of,
    given,
    many,
    of_record,
    text,
    thing,
    whole,
    yes_or_no,
)
from borgcube.plugins.api import common

CLIENT = of_record(Client)
MEANINGS = {
    "transport": "How the server reaches it: the name of a loaded transport.",
    "host": "Host name or address, as the server reaches it.",
    "port": "22 if not given.", "user": "Whom to log in as.",
    "identity": "A private key's file on the server; needs the permission administer.",
    "borg": "borg's path on the client, or `deploy`: the server sends one along.",
    "domain": "Clients of one domain may learn each other's chunks, and upload less.",
    "options": "The transport's own; needs the permission administer.",
    "max_job_bytes": "What one backup may store newly; 0 is no limit, here and below.",
    "max_total_bytes": "What all its archives may have stored.",
    "max_files": "Files, directories and links in one archive.",
    "max_duration_s": "How long a backup may send.",
    "max_sessions": "How many of its jobs may run at once.",
    "network": "Jobs of one network share its slots.",
}  # fmt: skip
FIELDS = fields_of(
    Client, MEANINGS, transport=text(longest=64, shortest=1), host=text(longest=255),
    user=text(longest=255), port=whole(1, 65535), borg=text(shortest=1),
    domain=NO_NAME,
    options={"type": "object", "maxProperties": 50}, network=NO_NAME,
)  # fmt: skip
# They name files of the server, which is more than setting up a client.
SERVERS_OWN = ("identity", "options")
KEY = given({name: {"type": "string"} for name in ("line", "type", "fingerprint_sha256")},
            title="HostKey")  # fmt: skip
ENROLLED = of_record(Client, more={"line": {
    "type": "string", "description": "One line of shell to paste on the client."}})  # fmt: skip
ENROLLED = {**ENROLLED, "title": "EnrolledClient"}


def _whose(record: Any) -> str:
    return str(record.name)


find = named("clients", client=_whose)


def _listed(call: Call) -> Listing:
    table, me = call.db.clients, call.me
    if not me.limited:
        return common.every(call, table)
    before, limit = common.before_of(call), common.limit_of(call)
    mine = [table.find("name", name) for name in me.clients]
    known = [(table.number_of(client), client) for client in mine if client is not None]
    known = sorted((pair for pair in known if before is None or pair[0] < before),
                   key=lambda pair: -pair[0])  # fmt: skip
    cursor = str(known[limit - 1][0]) if len(known) > limit else ""
    return Listing([client.as_data() for _, client in known[:limit]], cursor)


def _add(call: Call) -> Answer:
    made = call.act("client.add", **call.body)
    return common.versioned(made, location=call.address("clients", made["name"]))


def _enrol(call: Call) -> Answer:
    made = call.act("client.enrol", **call.body)
    return Answer(made, location=call.address("clients", made["name"]))


def _enrolment(call: Call) -> Any:
    return call.act("client.enrolment", name=call.record.name)


def _change(call: Call) -> Answer:
    return common.versioned(
        call.act("client.set", name=call.record.name, version=call.version, **call.body)
    )


def _remove(call: Call) -> None:
    call.act("client.remove", name=call.record.name, version=call.version,
             with_plans=call.query.get("with_plans", False))  # fmt: skip


def _test(call: Call) -> dict[str, Any]:
    try:
        said = call.act("client.test", name=call.record.name)
    except BorgCubeError as error:
        return {"ok": False, "borg_version": "", "message": error.message,
                "next_step": error.next_step}  # fmt: skip
    return {"ok": True, "borg_version": said["borg_version"], "message": "", "next_step": ""}


def _host_keys(call: Call) -> Any:
    return call.act("client.host_keys", name=call.record.name)


def _trust(call: Call) -> Any:
    return call.act("client.trust", name=call.record.name, lines=call.body["lines"])


_ONE, _CONFIGURE = "/clients/{name}", Permission.CONFIGURE
ENDPOINTS = [
    Endpoint(
        name="clients.list", method="GET", path="/clients", handler=_listed, paged=True,
        summary="List clients, newest first", query=page_query(), returns=CLIENT,
    ),
    Endpoint(
        name="clients.add", method="POST", path="/clients", handler=_add, status=201,
        summary="Add a client whose login works already", permission=_CONFIGURE,
        body=thing({"name": NAME, **FIELDS}, required=("name", "transport"), title="NewClient"),
        returns=CLIENT,
    ),
    Endpoint(
        name="clients.show", method="GET", path=_ONE, handler=common.record, find=find,
        summary="Show a client", returns=CLIENT, versioned=True,
    ),
    Endpoint(
        name="clients.change", method="PATCH", path=_ONE, handler=_change, find=find,
        summary="Change what is given of a client", permission=_CONFIGURE, versioned=True,
        body=thing(FIELDS, least=1, title="ClientChange"), returns=CLIENT,
    ),
    Endpoint(
        name="clients.remove", method="DELETE", path=_ONE, handler=_remove, find=find,
        summary="Forget a client; its archives stay", permission=_CONFIGURE, versioned=True,
        query={"with_plans": yes_or_no("Its plans go as well; else they are in the way.")},
        status=204,
    ),
    Endpoint(
        name="clients.test", method="POST", path=f"{_ONE}/test", handler=_test, find=find,
        summary="Log in to a client and ask for borg's version", permission=_CONFIGURE,
        returns=given({"ok": yes_or_no(), "borg_version": {"type": "string"},
                       "message": {"type": "string"}, "next_step": {"type": "string"}},
                      title="ClientTest"),
    ),
    Endpoint(
        name="clients.diagnose", method="POST", path=f"{_ONE}/diagnose", find=find,
        handler=lambda call: call.act("client.diagnose", name=call.record.name),
        summary="Test the way to a client step by step: name, port, host key, login, shell, borg",
        permission=_CONFIGURE,
        returns=given({"good": yes_or_no(), "steps": {"type": "array", "items": given(
            {key: {"type": "string"} for key in ("name", "state", "said", "next_step")},
            title="DiagnosisStep")}}, title="Diagnosis"),
    ),
    Endpoint(
        name="clients.host-keys", method="GET", path=f"{_ONE}/host-keys", handler=_host_keys,
        find=find, summary="Ask the host for its keys, unverified", permission=_CONFIGURE,
        returns=given({"keys": {"type": "array", "items": KEY},
                       "trusted": {"type": "array", "items": KEY},
                       "known": yes_or_no("Whether all of them are trusted.")},
                      title="HostKeys"),
    ),
    Endpoint(
        name="clients.trust", method="POST", path=f"{_ONE}/trust", handler=_trust, find=find,
        summary="Accept host keys that were compared", permission=_CONFIGURE,
        body=thing({"lines": many(text(longest=2000, shortest=1), most=20, least=1)},
                   required=("lines",), title="TrustedKeys"),
        returns=given({"trusted": {"type": "integer"}}, title="Trusted"),
    ),
    Endpoint(
        name="clients.enrolment", method="GET", path=f"{_ONE}/enrolment", handler=_enrolment,
        find=find, summary="Show the line to paste on an enrolled client",
        permission=_CONFIGURE, returns=given({"line": {"type": "string"}}, title="Enrolment"),
    ),
    Endpoint(
        name="clients.enrol", method="POST", path="/enrolments", handler=_enrol, status=201,
        tag="clients", permission=_CONFIGURE,
        summary="Add a client with a key of its own and the line to paste there",
        body=thing({"name": NAME, **{key: value for key, value in FIELDS.items()
                                     if key != "identity"}},
                   required=("name", "host"), title="NewEnrolment"),
        returns=ENROLLED,
    ),
]  # fmt: skip
