"""Runners: real programs on this machine, under qemu and over ssh; every way to fail is told in one sentence."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgenext_tvm.board import load_board
from edgenext_tvm.codegen.toolchain import Toolchain
from edgenext_tvm.errors import UserError
from edgenext_tvm.verify.runner import HostRunner, QemuRunner, SshRunner, choose_runner

# copies argv[2] to argv[3] in upper case; other first arguments choose how to fail
PROGRAM = r"""
#include <ctype.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int main(int argc, char **argv) {
    if (argc < 2 || strcmp(argv[1], "status1") == 0) return 1;
    if (strcmp(argv[1], "mistake") == 0) { fprintf(stderr, "tool: error: no such image\n"); return 2; }
    if (strcmp(argv[1], "illegal") == 0) raise(SIGILL);
    if (strcmp(argv[1], "crash") == 0) abort();
    if (strcmp(argv[1], "hang") == 0) for (;;) {}
    if (strcmp(argv[1], "nothing") == 0) return 0;
    FILE *in = fopen(argv[2], "rb"), *out = fopen(argv[3], "wb");
    if (!in || !out) return 3;
    for (int c; (c = fgetc(in)) != EOF;) fputc(toupper(c), out);
    fclose(out);
    printf("%d bytes a pointer\n", (int)sizeof(void *));
    return 0;
}
"""


def build(board: str, folder: Path) -> Path:
    source = folder / "tool.c"
    source.write_text(PROGRAM)
    toolchain = Toolchain.for_board(load_board(board))
    return toolchain.link_executable(toolchain.compile([source], folder / "obj"), folder / "tool")


@pytest.fixture(scope="module")
def host_tool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("host", tmp_path_factory.mktemp("host"))


@pytest.fixture(scope="module")
def rpi4_tool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("rpi4", tmp_path_factory.mktemp("rpi4"))


def copy_upper(runner: HostRunner | SshRunner, tool: Path, folder: Path) -> tuple[str, str]:
    image, result = folder / "image.txt", folder / "result.txt"
    image.write_text("edgenext")
    finished = runner.run(tool, ["copy", "image.txt", "result.txt"], [image], [result])
    assert finished.status == 0
    return finished.stdout, result.read_text()


def test_the_host_runs_with_inputs_by_name_and_brings_outputs_back(host_tool: Path, tmp_path: Path) -> None:
    assert copy_upper(HostRunner(), host_tool, tmp_path) == ("8 bytes a pointer\n", "EDGENEXT")


def test_a_failed_selftest_is_a_result_not_an_error(host_tool: Path) -> None:
    assert HostRunner().run(host_tool, ["status1"]).status == 1


def test_the_programs_own_error_is_passed_on(host_tool: Path) -> None:
    with pytest.raises(UserError, match=r"^on host: tool: error: no such image$"):
        HostRunner().run(host_tool, ["mistake"])


def test_an_illegal_instruction_points_at_the_wrong_board(host_tool: Path) -> None:
    with pytest.raises(UserError, match="illegal instruction: the program was compiled for a core with more"):
        HostRunner().run(host_tool, ["illegal"])


def test_a_crash_names_its_signal(host_tool: Path) -> None:
    with pytest.raises(UserError, match="tool on host was ended by SIGABRT"):
        HostRunner().run(host_tool, ["crash"])


def test_a_program_that_hangs_is_ended(host_tool: Path) -> None:
    with pytest.raises(UserError, match=r"ran longer than 0\.2 s"):
        HostRunner().run(host_tool, ["hang"], timeout_s=0.2)


def test_a_missing_output_is_an_error(host_tool: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tool on host did not write logits\.npy"):
        HostRunner().run(host_tool, ["nothing"], outputs=[tmp_path / "logits.npy"])


def test_a_program_of_another_machine_is_told_from_a_missing_one(tmp_path: Path) -> None:
    foreign = tmp_path / "tool"
    foreign.write_bytes(b"\x7fELF but of no machine at all")
    foreign.chmod(0o755)
    with pytest.raises(UserError, match=r"was not built for this machine .*--runner qemu"):
        HostRunner().run(foreign, [])
    with pytest.raises(UserError, match="cannot start .*gone: No such file"):
        HostRunner().run(tmp_path / "gone", [])


@pytest.mark.qemu
def test_qemu_runs_a_board_s_program(rpi4_tool: Path, tmp_path: Path) -> None:
    runner = QemuRunner.for_board(load_board("rpi4"))
    assert runner.name == "qemu-aarch64 cortex-a72"
    assert copy_upper(runner, rpi4_tool, tmp_path) == ("8 bytes a pointer\n", "EDGENEXT")
    with pytest.raises(UserError, match="illegal instruction"):
        runner.run(rpi4_tool, ["illegal"])


def test_qemu_that_is_not_installed_names_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"qemu-aarch64 not found; install it \(Debian: qemu-user\)"):
        QemuRunner.for_board(load_board("rpi4"))


def test_a_board_without_an_emulator_says_what_to_add() -> None:
    with pytest.raises(UserError, match=r"board 'host' names no emulator.*add qemu and qemu_cpu to \[run\]"):
        QemuRunner.for_board(load_board("host"))


def test_the_board_chooses_its_runner_unless_one_is_named() -> None:
    assert choose_runner(load_board("host"), None) == HostRunner()
    assert choose_runner(load_board("rpi4"), "host") == HostRunner()
    if shutil.which("ssh"):
        assert choose_runner(load_board("rpi4"), "ssh://pi@board:2222") == SshRunner("pi@board", 2222)


def test_an_unknown_runner_lists_the_allowed_ones() -> None:
    with pytest.raises(UserError, match=r"unknown runner 'adb'; allowed: host, qemu, ssh://user@host"):
        choose_runner(load_board("rpi4"), "adb")


needs_ssh = pytest.mark.skipif(shutil.which("ssh") is None, reason="ssh not found: install openssh-client")


@needs_ssh
def test_ssh_addresses_are_checked_before_anything_runs() -> None:
    assert SshRunner.from_url("ssh://board").name == "ssh://board"
    assert SshRunner.from_url("ssh://pi@10.0.0.2:2200/").name == "ssh://pi@10.0.0.2:2200"
    for wrong in ("ssh://", "ssh://-oProxyCommand=x", "ssh://pi@board;ls", "ssh://pi@board:port"):
        with pytest.raises(UserError, match="is not of the form ssh://user@host"):
            SshRunner.from_url(wrong)
    for wrong in ("ssh://board:0", "ssh://board:65536"):
        with pytest.raises(UserError, match="port [0-9]+ does not exist; allowed: 1 to 65535"):
            SshRunner.from_url(wrong)


@needs_ssh
def test_ssh_and_scp_never_ask_and_take_the_port() -> None:
    runner = SshRunner("pi@board", 2200)
    common = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=10"]
    assert runner.ssh_command("true") == ["ssh", *common, "-p", "2200", "pi@board", "true"]
    source, target = "a.npy", runner.remote_path("/tmp/x/")
    assert runner.scp_command([source], target) == ["scp", "-q", *common, "-P", "2200", source, "pi@board:/tmp/x/"]


@needs_ssh
def test_a_host_that_cannot_be_reached_says_how_to_check(host_tool: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(UserError, match=r"cannot reach ssh://127\.0\.0\.1:\d+: .*refused.*; check that `ssh "):
        SshRunner("127.0.0.1", port).run(host_tool, ["copy"])


@pytest.fixture
def ssh_server(tmp_path: Path) -> Iterator[SshRunner]:
    """A real sshd of our own on the loopback address, with keys of its own."""
    server = shutil.which("sshd", path=f"/usr/sbin:{os.environ['PATH']}")
    if server is None:
        pytest.skip("sshd not found: install openssh-server")
    for name in ("host_key", "user_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    (tmp_path / "authorized").write_text((tmp_path / "user_key.pub").read_text())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    Path("/run/sshd").mkdir(exist_ok=True)
    options = {
        "ListenAddress": f"127.0.0.1:{port}",
        "HostKey": tmp_path / "host_key",
        "AuthorizedKeysFile": tmp_path / "authorized",
        "StrictModes": "no",
        "UsePAM": "no",
        "PidFile": "none",
        "Subsystem": "sftp internal-sftp",
    }
    config = tmp_path / "sshd_config"
    config.write_text("".join(f"{key} {value}\n" for key, value in options.items()))
    process = subprocess.Popen([server, "-D", "-e", "-f", config], stderr=subprocess.DEVNULL)
    try:
        for _ in range(50):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        client = ("-i", str(tmp_path / "user_key"), "-o", "StrictHostKeyChecking=no")
        known = ("-o", f"UserKnownHostsFile={tmp_path / 'known'}", "-o", "LogLevel=ERROR")
        yield SshRunner("127.0.0.1", port, (*client, *known))
    finally:
        process.terminate()
        process.wait()


@pytest.mark.slow
@needs_ssh
def test_over_ssh_files_go_there_and_back_and_nothing_stays(
    ssh_server: SshRunner, host_tool: Path, rpi4_tool: Path, tmp_path: Path
) -> None:
    before = set(Path("/tmp").glob("edgenext-tvm-ssh-*"))
    assert copy_upper(ssh_server, host_tool, tmp_path) == ("8 bytes a pointer\n", "EDGENEXT")
    with pytest.raises(UserError, match="illegal instruction"):
        ssh_server.run(host_tool, ["illegal"])
    with pytest.raises(UserError, match="no such image"):
        ssh_server.run(host_tool, ["mistake"])
    foreign = tmp_path / "foreign"
    foreign.write_bytes(b"\x7fELF but of no machine at all")
    with pytest.raises(UserError, match=r"cannot execute foreign: it was built for another processor"):
        ssh_server.run(foreign, [])
    assert set(Path("/tmp").glob("edgenext-tvm-ssh-*")) == before
