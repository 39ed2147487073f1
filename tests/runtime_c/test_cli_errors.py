"""The command line program: every wrong input or option gives one line that says what to do, and status 2."""

from __future__ import annotations

import io
import os
import signal
import struct
import subprocess
import time

import numpy as np
import pytest

GOOD_PPM = b"P6 2 2 255\n" + bytes(12)


def npy(array, version=(1, 0)):
    out = io.BytesIO()
    np.lib.format.write_array(out, array, version=version)
    return out.getvalue()


def raw_npy(header: str, data: bytes = b"", version: int = 1) -> bytes:
    text = header.encode()
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + data


U1 = "{'descr': '|u1', 'fortran_order': False, 'shape': %s, }"

BAD_FILES = {
    "empty": (b"", "is empty; allowed are binary .ppm (P6), .pgm (P5) and .npy"),
    "text": (b"hello world", "is of an unknown format; allowed are"),
    "jpeg": (b"\xff\xd8\xff\xe0....", "is a JPEG file; allowed are binary .ppm (P6), .pgm (P5) and .npy; convert it"),
    "png": (b"\x89PNG\r\n\x1a\n....", "is a PNG file"),
    "gif": (b"GIF89a....", "is a GIF file"),
    "ascii ppm": (b"P3 1 1 255\n0 0 0\n", "is a P3 file; allowed are"),
    "ppm cut in pixels": (GOOD_PPM[:-1], "is truncated: its header promises 12 bytes of data, 11 are there"),
    "ppm cut in header": (b"P6 2 ", "has a broken P6 header; after P6 come width, height and 255"),
    "ppm negative": (b"P6 -2 2 255\n" + bytes(12), "has a broken P6 header"),
    "ppm overflowing": (b"P6 99999999999999999999 2 255\n", "has a broken P6 header"),
    "ppm too wide": (b"P6 16385 1 255\n" + bytes(16385 * 3), "is 16385 x 1 pixels; allowed is 1 to 16384 on each side"),
    "ppm without width": (b"P6 0 2 255\n", "is 0 x 2 pixels; allowed is 1 to 16384"),
    "ppm 16 bit": (b"P6 2 2 65535\n" + bytes(24), "has a largest level of 65535; allowed is 255 (8 bits); convert it"),
    "ppm two images": (GOOD_PPM * 2, "has 23 bytes after its data; one image a file is allowed; split it"),
    "ppm endless comment": (b"P6 #" + b"x" * 5000, "has a broken P6 header"),
    "npy cut in magic": (b"\x93NUMPY\x01", "is truncated within its .npy header"),
    "npy cut in header": (npy(np.zeros((2, 2, 3), np.uint8))[:40], "is truncated within its .npy header"),
    "npy cut in data": (npy(np.zeros((2, 2, 3), np.uint8))[:-1], "promises 12 bytes of data, 11 are there"),
    "npy with more": (npy(np.zeros((2, 2, 3), np.uint8)) + b"x", "has 1 bytes after its data; one array a file"),
    "npy version 3": (npy(np.zeros((2, 2, 3), np.uint8), (3, 0)), "of version 3; allowed are 1 and 2"),
    "npy huge header": (raw_npy("{" + " " * 5000), "has a .npy header of 5001 bytes; allowed are 4095"),
    "npy 4 GiB header": (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "has a .npy header of 4294967295 bytes"),
    "npy no dictionary": (raw_npy("nothing"), "has a broken .npy header; save it with numpy.save"),
    "npy no shape": (raw_npy("{'descr': '|u1', 'fortran_order': False}"), "has a broken .npy header"),
    "npy negative": (raw_npy(U1 % "(-1, 2, 3)"), "has a broken .npy header"),
    "npy overflow": (raw_npy(U1 % "(99999999999999999999, 2, 3)"), "has a broken .npy header"),
    "npy many dimensions": (raw_npy(U1 % "(1, 1, 1, 1, 1, 1, 1, 1, 1, 1)"), "has a broken .npy header"),
    "npy empty image": (npy(np.zeros((0, 2, 3), np.uint8)), "is 2 x 0 pixels; allowed is 1 to 16384"),
    "npy empty batch": (npy(np.zeros((0, 2, 2, 3), np.uint8)), "has 0 images; allowed are 1 to 1000000"),
    "npy huge batch": (raw_npy(U1 % "(4000000000, 16384, 16384, 3)"), "has 4000000000 images"),
    "npy fortran": (npy(np.asfortranarray(np.zeros((4, 2, 3), np.uint8))), "in Fortran order; allowed is C order"),
    "npy float64": (npy(np.zeros((2, 2, 3))), "has the dtype '<f8'; allowed are uint8 '|u1' (images) and int8 '|i1'"),
    "npy float32": (npy(np.zeros((8, 8, 3), np.float32)), "has the dtype '<f4'; allowed are"),
    "npy big endian": (npy(np.zeros((8, 8, 3), ">i2")), "has the dtype '>i2'; allowed are"),
    "npy record": (npy(np.zeros((8, 8, 3), [("a", "u1")])), "has the dtype 'record'; allowed are"),
    "npy grey": (npy(np.zeros((2, 2), np.uint8)), "uint8 array of rank 2; allowed are an image [H,W,3] and a batch"),
    "npy rank 5": (npy(np.zeros((1, 1, 2, 2, 3), np.uint8)), "uint8 array of rank 5"),
    "npy channels first": (npy(np.zeros((3, 8, 8), np.uint8)), "has a last dimension of 8; allowed is 3"),
    "npy other side": (npy(np.zeros((9, 9, 3), np.int8)), "the network's input; allowed is int8 [8,8,3] or [B,8,8,3]"),
    "npy flat": (npy(np.zeros(192, np.int8)), "is int8 of rank 1 and not the network's input"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD_FILES)
def test_a_bad_file_is_named_and_explained(cli, tmp_path, what):
    content, message = BAD_FILES[what]
    path = tmp_path / "bad"
    path.write_bytes(content)
    line = cli.refuses("--json", path)
    assert message in line and f"'{path}'" in line


def test_a_missing_file(cli, tmp_path):
    assert cli.refuses(tmp_path / "no.ppm") == (
        f"cannot open '{tmp_path}/no.ppm': No such file or directory; check the path"
    )


@pytest.mark.parametrize("what", ["folder", "pipe", "device"])
def test_what_is_no_regular_file(cli, tmp_path, what):
    path = tmp_path / "x"
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    else:
        path = "/dev/zero"
    assert "is not a regular file but a folder, pipe or device; give a file" in cli.refuses(path)


OPTIONS = {
    ("--top", "0"): "--top '0' is not allowed; give a whole number from 1 to 4",
    ("--top", "5"): "--top '5' is not allowed; give a whole number from 1 to 4",
    ("--top", "two"): "--top 'two' is not allowed",
    ("--top", ""): "--top '' is not allowed",
    ("--repeat", "-1"): "--repeat '-1' is not allowed; give a whole number from 1 to 1000000",
    ("--repeat", "1e3"): "--repeat '1e3' is not allowed",
    ("--repeat", "99999999999999999999"): "is not allowed; give a whole number from 1 to 1000000",
    ("--threads", "17"): "--threads '17' is not allowed; give a whole number from 1 to 16",
    ("--threads", "2x"): "--threads '2x' is not allowed",
    ("--threads",): "option '--threads' needs a value; see --help",
    ("--fast",): "'--fast' is not an option or has a value it does not take; allowed are --top K,",
    ("--json=1",): "'--json=1' is not an option or has a value it does not take",
    ("-x",): "'-x' is not an option",
    (): "no IMAGE given; give .ppm, .pgm or .npy files, or --selftest, --benchmark or --profile, or try --help",
    ("--json",): "no IMAGE given",
    ("--dump", "d.npy", "--benchmark"): "--dump 'd.npy' needs at least one IMAGE",
    ("--selftest", "a.ppm"): "--selftest takes no IMAGE, --dump, --benchmark or --profile",
    ("--selftest",): "--selftest: no golden vectors are linked in",
}


@pytest.mark.parametrize("arguments", OPTIONS, ids=" ".join)
def test_a_bad_option_is_named_and_explained(cli, arguments):
    assert OPTIONS[arguments] in cli.refuses(*arguments)


def test_too_many_runs(cli, tmp_path):
    path = tmp_path / "many.npy"
    path.write_bytes(npy(np.zeros((30, 1, 1, 3), np.uint8)))
    line = cli.refuses("--repeat", 1000000, path)
    assert line == "30 images times --repeat 1000000 are too many runs; allowed are 20000000; lower --repeat"


def test_threads_of_a_serial_build(build_cli):
    program = build_cli("tiny_serial", "-DENX_NO_THREADS")
    assert program("--benchmark").code == 0
    assert "cannot start 2 threads: the number of threads is outside" in program.refuses(
        "--benchmark", "--threads", 2
    )


def test_a_failing_step_is_named(failing_cli, tmp_path):
    program = failing_cli
    (tmp_path / "x.npy").write_bytes(npy(np.zeros((8, 8, 3), np.int8)))
    (tmp_path / "x.ppm").write_bytes(GOOD_PPM)
    result = program(tmp_path / "x.npy")
    assert (result.code, result.out) == (2, "")
    assert "the network failed at step 1 (blocks.0): a step of the network reported a failure" in result.err
    assert "but the model carries no preprocessing; give its input as .npy" in program(tmp_path / "x.ppm").err


def test_an_error_in_the_last_file_prints_and_leaves_nothing(cli, tmp_path):
    good, bad, dump = tmp_path / "good.ppm", tmp_path / "bad.ppm", tmp_path / "d.npy"
    good.write_bytes(GOOD_PPM)
    bad.write_bytes(GOOD_PPM[:-1])
    assert "is truncated" in cli.refuses("--dump", dump, good, good, bad)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.ppm", "good.ppm"]


def test_a_failed_run_leaves_no_partial_dump_and_the_old_one(failing_cli, tmp_path):
    program = failing_cli
    (tmp_path / "x.npy").write_bytes(npy(np.zeros((8, 8, 3), np.int8)))
    (tmp_path / "d.npy").write_bytes(b"old")
    assert program("--dump", tmp_path / "d.npy", tmp_path / "x.npy").code == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d.npy", "x.npy"]
    assert (tmp_path / "d.npy").read_bytes() == b"old"


def test_dump_never_overwrites_an_image(cli, tmp_path):
    (tmp_path / "a.ppm").write_bytes(GOOD_PPM)
    (tmp_path / "link.ppm").symlink_to(tmp_path / "a.ppm")
    for target in ("a.ppm", "link.ppm"):
        line = cli.refuses("--dump", tmp_path / target, tmp_path / "a.ppm")
        assert "would overwrite the IMAGE" in line and "give a new file name after --dump" in line
    assert (tmp_path / "a.ppm").read_bytes() == GOOD_PPM


@pytest.mark.parametrize("target", ["missing/d.npy", ".", "/dev/full"])
def test_dump_to_where_no_file_can_be(cli, tmp_path, target):
    (tmp_path / "a.ppm").write_bytes(GOOD_PPM)
    line = cli.refuses("--dump", tmp_path / target, tmp_path / "a.ppm")
    assert line.startswith("cannot write --dump '") and "give " in line
    assert [p.name for p in tmp_path.iterdir()] == ["a.ppm"]


def test_a_full_disk_leaves_nothing(cli, tmp_path):
    (tmp_path / "a.ppm").write_bytes(GOOD_PPM)
    limit = ("bash", "-c", 'trap "" XFSZ; ulimit -f 0; "$@"', "-")
    result = cli("--dump", tmp_path / "d.npy", tmp_path / "a.ppm", runner=limit)
    assert result.code == 2 and result.err.startswith("tiny: error: cannot write --dump '"), result
    assert "File too large; give a path in a folder that exists, is writable and has room" in result.err
    assert [p.name for p in tmp_path.iterdir()] == ["a.ppm"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_run_leaves_nothing(cli, tmp_path, number):
    (tmp_path / "a.ppm").write_bytes(GOOD_PPM)
    command = [
        str(cli.path),
        "--dump",
        str(tmp_path / "d.npy"),
        "--repeat",
        "1000000",
        str(tmp_path / "a.ppm"),
    ]
    # a job in the background of a shell inherits an ignored SIGINT, which the program rightly keeps
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, preexec_fn=lambda: signal.signal(number, signal.SIG_DFL)
    )
    deadline = time.monotonic() + 20
    while not list(tmp_path.glob("d.npy.*.partial")) and time.monotonic() < deadline:
        time.sleep(0.005)
    assert list(tmp_path.glob("d.npy.*.partial")), "the run was seen half-way"
    process.send_signal(number)
    assert process.wait(20) == -number
    assert [p.name for p in tmp_path.iterdir()] == ["a.ppm"]


def test_a_full_standard_output_is_an_error(cli, tmp_path):
    (tmp_path / "a.ppm").write_bytes(GOOD_PPM)
    with open("/dev/full", "wb") as full:
        done = subprocess.run([str(cli.path), str(tmp_path / "a.ppm")], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2 and b"cannot write to standard output" in done.stderr


def test_help_and_version(cli):
    for option in ("--help", "-h"):
        result = cli(option)
        assert (result.code, result.err) == (0, "") and result.out.startswith(
            "usage: tiny [options] IMAGE..."
        )
        for name in (
            "top",
            "repeat",
            "threads",
            "benchmark",
            "profile",
            "dump",
            "json",
            "selftest",
            "version",
        ):
            assert f"  --{name} " in result.out
    version = cli("--version").out
    assert version == "tiny, enx interface 1, input 8x8x3 int8, 4 classes, arena 512 bytes\n"


def test_bad_input_under_sanitizers(sanitized_cli, tmp_path):
    for what, (content, message) in BAD_FILES.items():
        path = tmp_path / "bad"
        path.write_bytes(content)
        assert message in sanitized_cli.refuses("--dump", tmp_path / "d.npy", path), what
    for arguments, message in OPTIONS.items():
        assert message in sanitized_cli.refuses(*arguments), arguments


def test_mutated_files_under_sanitizers(sanitized_cli, tmp_path):
    """Each of 150 damaged files is classified or refused with one line; never a finding, never another status."""
    rng = np.random.default_rng(11)
    seeds = [GOOD_PPM, b"P5 3 2 255\n" + bytes(6), npy(np.zeros((2, 2, 3), np.uint8)),
             npy(np.zeros((2, 2, 2, 3), np.uint8), (2, 0)), npy(np.zeros((8, 8, 3), np.int8))]  # fmt: skip
    codes = set()
    for i in range(150):
        content = bytearray(seeds[i % len(seeds)])
        for _ in range(rng.integers(1, 4)):
            header = min(len(content), 90)
            content[rng.integers(0, header)] = rng.choice(bytearray(b"\x00\xff 0123459(),':#\n"))
        path = tmp_path / "mutated"
        path.write_bytes(content)
        result = sanitized_cli(path)
        codes.add(result.code)
        assert result.code in (0, 2) and result.err.count("\n") == (result.code == 2), (
            bytes(content),
            result,
        )
    assert codes == {0, 2}


def test_good_input_of_many_sizes_under_sanitizers(sanitized_cli, cli, tmp_path):
    paths = []
    for width, height in [(1, 1), (1, 99), (99, 1), (8, 8), (10, 10), (9, 11), (640, 480), (13, 1000)]:
        pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
        paths.append(tmp_path / f"{width}x{height}.npy")
        paths[-1].write_bytes(npy(pixels))
    options = ("--threads", 3, "--repeat", 2, "--dump", tmp_path / "d.npy")
    dumps = []
    for program in (cli, sanitized_cli):
        for extra in ((), ("--json", "--profile"), ("--benchmark", "--profile")):
            result = program(*options, *extra, *paths)
            assert (result.code, result.err) == (0, "")
        dumps.append((tmp_path / "d.npy").read_bytes())
    assert dumps[0] == dumps[1]
