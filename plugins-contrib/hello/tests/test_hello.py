"""The plugin registers, greets and observes."""

import logging
import sys
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).parents[1]))

import borgcube_hello

from borgcube.core import options
from borgcube.core.registry import Registry


def test_it_registers_a_job_that_greets():
    registry = Registry()
    assert registry.add(borgcube_hello, name="hello")
    context = SimpleNamespace(
        order=SimpleNamespace(parameters={"name": "you"}),
        phase=lambda name: None, log=lambda level, message: said.append(message),
    )  # fmt: skip
    said = []
    assert registry.job_types["hello"].run(context).data == {"greeted": "you"}
    assert said == ["Hello, you."]


def test_its_parameter_is_a_field_of_the_form_of_a_task():
    registry = Registry()
    registry.add(borgcube_hello, name="hello")
    job_type = registry.job_types["hello"]
    (field,) = options.fields_of(job_type)
    assert (field.name, field.label) == ("hello.name", "Whom to greet")
    assert options.meant(job_type, {"hello.name": "you"}, [], field="parameters") == {"name": "you"}


def test_it_notes_new_archives_and_nothing_else(caplog):
    registry = Registry()
    registry.add(borgcube_hello, name="hello")
    with caplog.at_level(logging.INFO, "borgcube.hello"):
        registry.observe({"type": "job.phase", "data": {}})
        registry.observe({"type": "archive.added", "data": {"archive": "web-1"}})
    assert caplog.messages == ["a new archive: web-1"]
