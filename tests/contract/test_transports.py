"""The built-in transports against the contract, with a real sshd."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from borgcube.core.errors import InvalidInput, JobFailed
from borgcube.core.hostkeys import known_hosts_for, parse_line
from borgcube.core.transports import ClientAddress, TransportContext
from borgcube.plugins.transport_local import LocalTransport
from borgcube.plugins.transport_openssh import OpenSSHTransport
from borgcube.plugins.transport_openssh.connection import ssh_command
from borgcube.plugins.transport_paramiko import ParamikoTransport
from borgcube.testing.sshd import PrivateSSHD, make_key, private_sshd
from borgcube.testing.transport_contract import Reach, TransportContract, becomes, running_with

__all__ = ["private_sshd"]
SSH = [OpenSSHTransport(), ParamikoTransport()]


@pytest.fixture
def context() -> Iterator[TransportContext]:
    with tempfile.TemporaryDirectory(prefix="bc", ignore_cleanup_errors=True) as name:
        (Path(name) / "known_hosts").touch()
        yield TransportContext(Path(name) / "known_hosts", Path(name), 5.0)


class TestLocal(TransportContract):
    @pytest.fixture
    def reach(self, context: TransportContext) -> Reach:
        return LocalTransport(), ClientAddress("here", "local"), context


@pytest.mark.parametrize("transport", SSH, ids=lambda one: one.name)
class TestSSH(TransportContract):
    @pytest.fixture
    def reach(self, transport, context: TransportContext, private_sshd: PrivateSSHD) -> Reach:
        context.known_hosts.write_text(private_sshd.known_hosts_line())
        return transport, private_sshd.address(transport.name), context

    def test_changed_host_key_names_both(self, reach: Reach, private_sshd: PrivateSSHD) -> None:
        transport, address, context = reach
        private_sshd.change_host_key()
        with pytest.raises(JobFailed) as failure:
            transport.connect(address, context)
        assert failure.value.cause.kind == "host-key-changed"
        assert failure.value.cause.message.count("SHA256:") == 2
        assert "borgcube client trust tester" in failure.value.cause.next_step

    def test_unknown_host_key(self, reach: Reach) -> None:
        transport, address, context = reach
        context.known_hosts.write_text("")
        with pytest.raises(JobFailed) as failure:
            transport.connect(address, context)
        assert failure.value.cause.kind == "host-key-unknown"

    def test_scanned_key_is_enough(self, reach: Reach, private_sshd: PrivateSSHD) -> None:
        transport, address, context = reach
        keys = transport.scan_host_keys(address, context)
        assert parse_line(private_sshd.known_hosts_line())[1] in keys

    def test_refused_login(self, reach: Reach, tmp_path: Path) -> None:
        transport, address, context = reach
        make_key(tmp_path / "other")
        with pytest.raises(JobFailed) as failure:
            transport.connect(
                dataclasses.replace(address, identity=str(tmp_path / "other")), context
            )
        assert failure.value.cause.kind == "login-refused"

    def test_no_identity_means_no_key(
        self, reach: Reach, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whoever adds a client without a key must not log in with one of the server's user."""
        transport, address, context = reach
        agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(context.runtime_dir / "agent")],
                                 stdout=subprocess.DEVNULL)  # fmt: skip
        try:
            monkeypatch.setenv("SSH_AUTH_SOCK", str(context.runtime_dir / "agent"))
            deadline = time.monotonic() + 10
            while subprocess.run(["ssh-add", "-q", address.identity], check=False,
                                 stderr=subprocess.DEVNULL).returncode:  # fmt: skip
                assert time.monotonic() < deadline, "the agent takes no key"
                time.sleep(0.05)
            with pytest.raises(JobFailed) as failure:
                transport.connect(dataclasses.replace(address, identity=""), context).close()
            assert failure.value.cause.kind == "login-refused"
        finally:
            agent.terminate()
            agent.wait(10)

    def test_nobody_there(self, reach: Reach, private_sshd: PrivateSSHD) -> None:
        transport, address, context = reach
        private_sshd.stop()
        with pytest.raises(JobFailed) as failure:
            transport.connect(address, context)
        assert failure.value.cause.kind == "host-unreachable"

    def test_broken_connection(self, reach: Reach, private_sshd: PrivateSSHD) -> None:
        transport, address, context = reach
        connection = transport.connect(address, context)
        process = connection.start(["sleep", "60"])
        private_sshd.drop_connections()
        with pytest.raises(JobFailed) as failure:
            process.wait(10)
        assert failure.value.cause.kind == "connection-lost"
        with pytest.raises(JobFailed) as failure:
            connection.run(["true"])
        assert failure.value.cause.kind == "connection-lost"
        connection.close()
        for descriptor in (process.stdin_fd, process.stdout_fd, process.stderr_fd):
            os.close(descriptor)

    def test_host_cannot_be_an_option(self, reach: Reach) -> None:
        transport, address, context = reach
        with pytest.raises(InvalidInput):
            transport.connect(dataclasses.replace(address, host="-oProxyCommand=id"), context)

    def test_killed_holder_leaves_no_process(self, reach: Reach) -> None:
        transport, address, context = reach
        marker = f"93{time.time_ns() % 10**9}"
        code = (
            "import sys, time\nfrom pathlib import Path\n"
            "from borgcube.core.transports import ClientAddress, TransportContext\n"
            f"from {type(transport).__module__} import {type(transport).__name__} as T\n"
            f"c = T().connect({address!r}, TransportContext(Path({str(context.known_hosts)!r}),"
            f" Path({str(context.runtime_dir)!r})))\n"
            f"p = c.start(['sleep', '{marker}'])\ntime.sleep(60)\n"
        )
        holder = subprocess.Popen([sys.executable, "-c", code])
        try:
            assert becomes(lambda: running_with(marker), within_s=15)
        finally:
            os.kill(holder.pid, signal.SIGKILL)
            holder.wait()
        assert becomes(lambda: not running_with(marker))


def test_given_ssh_config_cannot_loosen(context: TransportContext, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(
        "ForwardAgent yes\nStrictHostKeyChecking no\nUserKnownHostsFile /dev/null\n"
        "PermitLocalCommand yes\nLocalForward 4000 localhost:4000\n"
    )
    address = ClientAddress("one", "openssh", "host", options={"ssh_config": str(config)})
    command = [*ssh_command(address, context, tmp_path / "s"), "-G", "--", "host"]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout
    settings = set(text.splitlines())
    assert {
        "forwardagent no", "stricthostkeychecking true", "permitlocalcommand no",
        "clearallforwardings yes", f"userknownhostsfile {context.known_hosts}",
    } <= settings  # fmt: skip


def test_keys_are_ours_to_name_wherever_an_ssh_config_leads(
    context: TransportContext, private_sshd: PrivateSSHD, tmp_path: Path
) -> None:
    """The key is scanned on the way that the configuration says, kept under the client's own
    host, and checked under that name."""
    config = tmp_path / "config"
    config.write_text(
        f"Host web1\n  HostName {private_sshd.host}\n  Port {private_sshd.port}\n"
        "  HostKeyAlias other\n  StrictHostKeyChecking no\n"
    )
    transport = OpenSSHTransport()
    address = dataclasses.replace(
        private_sshd.address("openssh"), host="web1", port=22, options={"ssh_config": str(config)}
    )
    # The command line's port wins over the configuration's.
    address = dataclasses.replace(address, port=private_sshd.port)
    (key,) = transport.scan_host_keys(address, context)
    assert key == parse_line(private_sshd.known_hosts_line())[1]
    trusted = dataclasses.replace(address, host_keys=(key.text,))
    known = known_hosts_for(trusted, tmp_path, context.runtime_dir)
    assert known.read_text().startswith(f"[web1]:{private_sshd.port} ")
    connection = transport.connect(trusted, dataclasses.replace(context, known_hosts=known))
    assert connection.run(["true"]).exit_code == 0
    connection.close()
    private_sshd.change_host_key()
    with pytest.raises(JobFailed) as failure:
        transport.connect(trusted, dataclasses.replace(context, known_hosts=known))
    assert failure.value.cause.kind == "host-key-changed"
