"""Measuring over RPC: TVM's own tracker and servers run as processes of this machine, and some of them are killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import tvm

from edgenext_tvm.board import Board, load_board
from edgenext_tvm.errors import UserError
from edgenext_tvm.kernels import Dense, Kernel, LayerNorm
from edgenext_tvm.kernels.sample_inputs import sample_inputs
from edgenext_tvm.paths import PACKAGE, TARGETS
from edgenext_tvm.schedules.default import space_of
from edgenext_tvm.tune import rpc_batch, rpc_build, rpc_trial
from edgenext_tvm.tune.measure import Candidate, Measurement, MeasurerLost
from edgenext_tvm.tune.rpc import Limits, RpcMeasurer, Timing, Workers
from edgenext_tvm.tune.rpc_worker import WorkerProcess

CHECKOUT = str(PACKAGE.parent)
if CHECKOUT not in sys.path:
    sys.path.insert(0, CHECKOUT)
from benchmarks.rpc_farm import HANG_ONCE, SLEEP, Farm  # noqa: E402

KERNEL = Dense(64, 32, 48, "lut")
QUICK = Timing(repeat=3, min_repeat_ms=1)
SLOW = Timing(repeat=2, min_repeat_ms=1, before_repeat=SLEEP)
SLEEP_S = 0.3


@pytest.fixture(scope="module")
def host() -> Board:
    return load_board("host")


@pytest.fixture(scope="module")
def farm() -> Iterator[Farm]:
    """Three slow servers; the tests that kill one start another first."""
    with Farm() as farm:
        farm.start(3, sleep_s=SLEEP_S)
        yield farm


Make = Callable[..., RpcMeasurer]


@pytest.fixture(scope="module")
def make(host: Board, farm: Farm) -> Iterator[Make]:
    """Makes measurers of the farm that share worker processes: each of these takes a second to start."""
    first = RpcMeasurer(host, farm.tracker.address, farm.key)

    def make(timing: Timing, limits: Limits | None = None) -> RpcMeasurer:
        measurer = RpcMeasurer(host, farm.tracker.address, farm.key, timing, limits)
        measurer.builders, measurer.testers = first.builders, first.testers
        return measurer

    yield make
    first.close()


def candidates(board: Board, count: int, kernel: Kernel = KERNEL) -> list[Candidate]:
    """The first points of the kernel's space, again and again."""
    func = kernel.prim_func("kernel")
    points = list(space_of(func, board.isa, board.cpu.features).points())
    return [Candidate(func, points[index % len(points)]) for index in range(count)]


def assert_measured(results: list[Measurement], timing: Timing = QUICK) -> None:
    for result in results:
        assert result.error is None
        assert len(result.seconds) == timing.repeat
        assert all(1e-8 < seconds < 1.0 for seconds in result.seconds)


def trials_running(measurer: RpcMeasurer, count: int) -> None:
    deadline = time.monotonic() + 60
    while sum(measurer.trials.values()) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def builder_of(others: set[psutil.Process]) -> psutil.Process:
    """The first worker process that is not one of `others`, as soon as it runs its own program."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for process in set(psutil.Process().children()) - others:
            with contextlib.suppress(psutil.Error):
                if "edgenext_tvm.tune.rpc_worker" in process.cmdline() and process.exe() == psutil.Process().exe():
                    return process
        time.sleep(0.01)
    raise AssertionError("no worker was started")


def in_background(measurer: RpcMeasurer, batch: list[Candidate]) -> tuple[threading.Thread, list]:
    outcome: list = []

    def run() -> None:
        try:
            outcome.append(measurer.measure(batch))
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


class TestArtifact:
    @pytest.mark.parametrize("kernel", [KERNEL, Dense(9, 33, 17, "residual"), LayerNorm(16, 24, affine=True)], ids=str)
    def test_the_library_computes_the_bits_of_the_twin(self, host: Board, kernel: Kernel, tmp_path: Path) -> None:
        (candidate,) = candidates(host, 1, kernel)
        artifact = rpc_build.build(host, candidate.func, candidate.decisions)
        path = tmp_path / "candidate.so"
        path.write_bytes(artifact.library)
        arguments = [
            tvm.runtime.tensor(value) if isinstance(value, np.ndarray) else tvm.runtime.empty(*value)
            for value in artifact.arguments
        ]
        tvm.runtime.load_module(str(path))[rpc_build.PACKED_SYMBOL](*arguments)
        expected = kernel.reference(*sample_inputs(kernel))
        assert any(np.array_equal(argument.numpy(), expected) for argument in arguments)

    def test_decisions_of_another_space_are_refused(self, host: Board) -> None:
        with pytest.raises(UserError, match="knobs"):
            rpc_build.build(host, KERNEL.prim_func("kernel"), {"no_such_knob": 1})

    def test_the_wrapper_hands_on_every_pointer_and_the_whole_range(self) -> None:
        assert "enx_candidate(data_of(&args[0]), data_of(&args[1]), 0, 8)" in rpc_build.wrapper_source(2, 8)


class TestMeasuring:
    def test_one_measurement_for_each_candidate_in_their_order(self, host: Board, farm: Farm, make: Make) -> None:
        big = candidates(host, 1, Dense(512, 96, 192, "lut"))
        batch = [*candidates(host, 3), *big, *candidates(host, 2)]
        measurer = make(QUICK)
        assert measurer.name, measurer.unit == ("rpc", "s")
        assert measurer.parallel == 3
        results = measurer.measure(batch)
        assert_measured(results)
        assert max(range(6), key=lambda index: min(results[index].seconds)) == 3
        assert len(measurer.trials) > 1
        assert sum(measurer.trials.values()) == 6

    def test_every_server_works_at_the_same_time(self, host: Board, farm: Farm, make: Make) -> None:
        measurer = make(SLOW)
        assert_measured(measurer.measure(candidates(host, 9)), SLOW)
        assert farm.most_sleeping() == 3

    def test_a_candidate_that_cannot_be_built_costs_only_itself(self, host: Board, farm: Farm, make: Make) -> None:
        good = candidates(host, 2)
        bad = Candidate(good[0].func, {"no_such_knob": 1})
        measurer = make(QUICK)
        first, failed, last = measurer.measure([good[0], bad, good[1]])
        assert_measured([first, last])
        assert failed.error is not None
        assert failed.error.startswith("build failed:")
        assert "no_such_knob" in failed.error

    def test_a_compiler_that_crashes_costs_only_its_candidate(self, host: Board, farm: Farm, make: Make) -> None:
        measurer = make(QUICK)
        measurer.builders, measurer.build_workers = Workers(rpc_build.__name__), 1
        others = set(psutil.Process().children())
        thread, outcome = in_background(measurer, candidates(host, 2))
        builder_of(others).send_signal(signal.SIGSEGV)
        thread.join(60)
        ((crashed, fine),) = outcome
        assert crashed.error == "the compiler ended by SIGSEGV"
        assert_measured([fine])
        measurer.builders.close()

    def test_a_compiler_that_hangs_is_ended(self, host: Board, farm: Farm, make: Make) -> None:
        measurer = make(QUICK, Limits(build=0.2))
        measurer.builders = Workers(rpc_build.__name__)
        others = set(psutil.Process().children())
        thread, outcome = in_background(measurer, candidates(host, 1))
        builder = builder_of(others)
        builder.suspend()
        thread.join(60)
        ((hung,),) = outcome
        assert hung.error == "build did not end within 0.2 s"
        assert not builder.is_running()
        measurer.builders.close()

    def test_describes_every_server_and_what_it_could_not_read(self, host: Board, farm: Farm, make: Make) -> None:
        measurer = make(QUICK)
        described = measurer.describe()
        assert described["tracker"] == farm.tracker.address
        assert described["key"] == farm.key
        assert len(described["servers"]) == 3
        for facts in described["servers"].values():
            assert facts["triple"].startswith("x86_64")
            assert set(facts) == {"triple", "cpu", "governor", "temperature_millicelsius", "throttled_flags"}
        assert described["timing"]["repeat"] == 3
        assert described["limits_s"]["queue"] == 1800

    def test_waiting_for_a_busy_server_is_no_timeout(
        self, host: Board, farm: Farm, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(rpc_batch, "_GRACE_S", 0.5)
        assert_measured(make(QUICK).measure(candidates(host, 3)))  # the workers are up
        taken = [farm.tracker.request(farm.key, 20) for _ in range(3)]
        sessions = [rpc_trial._connect(offer, 100.0) for offer in taken]
        limits = Limits(trial=2.0)
        measurer = make(QUICK, limits)
        thread, outcome = in_background(measurer, candidates(host, 3))
        # longer than a trial may take
        thread.join(4.0)
        assert thread.is_alive()
        sessions.clear()
        thread.join(60)
        (results,) = outcome
        assert_measured(results)
        assert measurer.waited_s > 1

    def test_a_queue_that_never_moves_is_reported(self, host: Board, farm: Farm, make: Make) -> None:
        sessions = [rpc_trial._connect(farm.tracker.request(farm.key, 20), 100.0) for _ in range(3)]
        measurer = make(QUICK, Limits(queue=1.0))
        with pytest.raises(MeasurerLost, match=r"no server of key 'farm' became free within 1 s") as caught:
            measurer.measure(candidates(host, 1))
        sessions.clear()
        assert "query_rpc_tracker" in str(caught.value)
        assert [result.ok for result in caught.value.measurements] == [False]

    def test_a_hanging_trial_is_ended_and_its_server_measures_on(self, host: Board, farm: Farm, make: Make) -> None:
        timing = Timing(repeat=2, min_repeat_ms=1, before_repeat=HANG_ONCE)
        measurer = make(timing, Limits(trial=2.0))
        results = measurer.measure(candidates(host, 6))
        failed = [result.error for result in results if result.error is not None]
        assert len(failed) == 1
        assert failed[0].startswith("did not end within 2 s on 127.0.0.1:")
        assert_measured([result for result in results if result.ok], timing)
        assert measurer.parallel == 3
        assert_measured(measurer.measure(candidates(host, 6)), timing)


class TestFaults:
    def test_one_of_three_killed_in_mid_trial_costs_nothing(self, host: Board, farm: Farm, make: Make) -> None:
        # the last to be used: the module's farm has one server more until the kill
        measurer = make(SLOW)
        thread, outcome = in_background(measurer, candidates(host, 10))
        trials_running(measurer, 3)
        farm.kill(next(iter(measurer.trials)))
        thread.join(60)
        (results,) = outcome
        assert_measured(results, SLOW)
        assert measurer.parallel == 2
        # ten, and the one that was begun again
        assert sum(measurer.trials.values()) == 11

    def test_closing_leaves_no_process(self, host: Board, farm: Farm) -> None:
        before = set(psutil.Process().children(recursive=True))
        measurer = RpcMeasurer(host, farm.tracker.address, farm.key, QUICK, build_workers=1)
        measurer.measure(candidates(host, 1))
        assert set(psutil.Process().children(recursive=True)) > before
        measurer.close()
        assert set(psutil.Process().children(recursive=True)) == before


class TestMistakes:
    def test_a_tracker_that_is_not_there(self, host: Board) -> None:
        with pytest.raises(UserError) as caught:
            RpcMeasurer(host, "127.0.0.1:9", "rpi4")
        assert "no RPC tracker answers on 127.0.0.1:9 (Connection refused)" in str(caught.value)
        assert "python -m tvm.exec.rpc_tracker --host 0.0.0.0 --port 9 --port-end 10" in str(caught.value)

    @pytest.mark.parametrize("text", ["9190", "host:", "host:port", ":9190", "host:70000"])
    def test_an_address_that_is_none(self, host: Board, text: str) -> None:
        with pytest.raises(UserError, match=rf"tracker '{text}' is not HOST:PORT; for example"):
            RpcMeasurer(host, text, "rpi4")

    def test_a_key_that_no_server_has(self, host: Board, farm: Farm) -> None:
        with pytest.raises(UserError, match=r"has no server of key 'rpi9'; it has 'farm'\. Start one on each board"):
            RpcMeasurer(host, farm.tracker.address, "rpi9")


class TestWorkerProcess:
    """What it serves does not matter here: the module has no job."""

    def test_an_exception_is_a_message_and_the_process_goes_on(self) -> None:
        worker = WorkerProcess("edgenext_tvm.errors")
        for _ in range(2):
            worker.start("no_such_job")
            message = worker.receive()
            assert message is not None
            assert message[0] == "failed"
            assert "no_such_job" in message[1]
        worker.kill()
        worker.kill()

    def test_a_crash_is_told_with_its_signal(self) -> None:
        worker = WorkerProcess("edgenext_tvm.errors")
        psutil.Process(worker._process.pid).send_signal(11)
        assert worker.receive() is None
        assert "SIGSEGV" in worker.how_it_ended()
        worker.kill()

    def test_an_idle_one_that_someone_ended_is_replaced(self) -> None:
        workers = Workers("edgenext_tvm.errors")
        first = workers.take()
        workers.give(first)
        assert workers.take() is first
        workers.give(first)
        os.kill(first._process.pid, signal.SIGKILL)
        first._process.wait()
        second = workers.take()
        assert second is not first
        second.start("no_such_job")
        assert second.receive()[0] == "failed"
        workers.give(second)
        workers.close()
        assert not second.is_alive()

    def test_it_ends_with_its_parent(self) -> None:
        text = """
import os
from edgenext_tvm.tune.rpc_worker import WorkerProcess
worker = WorkerProcess("edgenext_tvm.errors")
print(worker._process.pid, flush=True)
os._exit(0)
"""
        done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True, cwd=CHECKOUT)
        deadline = time.monotonic() + 20
        while psutil.pid_exists(int(done.stdout)):
            assert time.monotonic() < deadline
            time.sleep(0.1)


class TestAllGone:
    """The last tests that use the farm: nothing of it is left."""

    @pytest.fixture(scope="class")
    def lasting(self, make: Make) -> RpcMeasurer:
        """Made while there still are servers."""
        return make(SLOW, Limits(back=1.0))

    def test_all_servers_killed_keeps_what_was_measured(self, host: Board, farm: Farm, lasting: RpcMeasurer) -> None:
        measurer = lasting
        addresses = measurer.refresh()
        thread, outcome = in_background(measurer, candidates(host, 8))
        trials_running(measurer, len(addresses) + 1)
        farm.kill(*addresses)
        thread.join(60)
        (lost,) = outcome
        assert isinstance(lost, MeasurerLost)
        assert f"no server of key 'farm' is registered with {farm.tracker.address} any more" in str(lost)
        assert f"python -m tvm.exec.rpc_server --tracker {farm.tracker.address} --key farm" in str(lost)
        assert len(lost.measurements) == 8
        measured = [result for result in lost.measurements if result.ok]
        assert measured
        assert_measured(measured, SLOW)
        errors = [result.error for result in lost.measurements if result.error is not None]
        assert any(error.startswith("its server was lost in mid-trial: 127.0.0.1:") for error in errors)
        assert any(error.startswith("not measured: no server of key 'farm'") for error in errors)

    def test_a_key_that_nobody_serves_any_more(self, host: Board, farm: Farm) -> None:
        with pytest.raises(UserError, match=r"no server of key 'farm'; it has none at all\. Start one on each board"):
            RpcMeasurer(host, farm.tracker.address, farm.key)

    def test_a_tracker_that_is_gone(self, host: Board, farm: Farm, lasting: RpcMeasurer) -> None:
        farm.kill("tracker")
        with pytest.raises(MeasurerLost, match=f"no RPC tracker answers on {farm.tracker.address}") as caught:
            lasting.measure(candidates(host, 2))
        assert [result.ok for result in caught.value.measurements] == [False, False]


ROOTFS_ENV = "ENX_ARM64_ROOTFS"


@pytest.mark.slow
def test_a_real_aarch64_server_measures_cross_compiled_candidates() -> None:
    """An x86 tracker, TVM's aarch64 wheel on an arm64 userland, and libraries from pip's cross compiler."""
    rootfs = os.environ.get(ROOTFS_ENV)
    if rootfs is None:
        pytest.skip(f"set {ROOTFS_ENV} to a folder made by: sudo {TARGETS}/arm64_rpc_server.sh setup FOLDER")
    script = str(TARGETS / "arm64_rpc_server.sh")
    board = load_board("rpi4")
    kernels = [Dense(64, ci, co, "lut") for ci in (48, 96, 160) for co in (32, 48)]
    kernels += [Dense(64, 96, 48, "none"), Dense(64, 96, 48, "residual"), LayerNorm(64, 48, affine=True)]
    batch = [candidate for kernel in kernels for candidate in candidates(board, 1, kernel)]
    with Farm("rpi4") as farm:
        port = str(next(farm.ports))
        command = [script, "start", rootfs, "--tracker", farm.tracker.address, "--port", port]
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 300
            while not farm.tracker.servers().get("rpi4"):
                assert server.poll() is None, "the server ended"
                assert time.monotonic() < deadline
                time.sleep(1)
            measurer = RpcMeasurer(board, farm.tracker.address, "rpi4", QUICK, Limits(trial=120.0))
            (facts,) = measurer.describe()["servers"].values()
            results = measurer.measure(batch)
            measurer.close()
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(60)
    assert facts["triple"].startswith("aarch64")
    assert len(results) >= 8
    assert_measured(results)
    inside = [proc for proc in Path("/proc").glob("[0-9]*/root") if os.path.realpath(proc) == os.path.realpath(rootfs)]
    assert inside == []


@pytest.mark.slow
def test_the_boards_script_starts_a_server_again_whose_session_died() -> None:
    with Farm("again") as farm:
        port = next(farm.ports)
        command = ["sh", str(TARGETS / "rpc_server.sh"), "--tracker", farm.tracker.address, "--key", "again"]
        command += ["--host", "127.0.0.1", "--port", str(port), "--port-end", str(port + 1)]
        script = subprocess.Popen(command, env={**os.environ, "PYTHON": sys.executable}, stdout=subprocess.DEVNULL)
        try:
            session = rpc_trial._connect(farm.tracker.request("again", 60), 100.0)
            before = psutil.Process(script.pid).children(recursive=True)
            max(before, key=lambda process: process.create_time()).kill()
            del session
            rpc_trial._connect(farm.tracker.request("again", 60), 100.0)
        finally:
            running = psutil.Process(script.pid).children(recursive=True)
            script.terminate()
            script.wait(30)
        assert psutil.wait_procs([*before, *running], timeout=20)[1] == []


class TestServerScript:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((), "usage:"),
            (("start", "{tmp}"), "--tracker HOST:PORT is missing"),
            (("setup", "/"), "DIR is /; give a folder of its own"),
            (("fly", "{tmp}"), "usage:"),
            (("start", "{tmp}", "--speed", "9"), "usage:"),
        ],
    )
    def test_a_mistake_is_told_before_anything_is_done(
        self, arguments: tuple[str, ...], message: str, tmp_path: Path
    ) -> None:
        if os.geteuid() != 0 and "missing" in message:
            message = "needs root"
        command = ["sh", str(TARGETS / "arm64_rpc_server.sh"), *(text.format(tmp=tmp_path) for text in arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert message in done.stdout + done.stderr
        assert list(tmp_path.iterdir()) == []
