"""The command line program: what it prints, measures and dumps for good input."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def pixels():
    return np.random.default_rng(5).integers(0, 256, (30, 40, 3), dtype=np.uint8)


@pytest.fixture
def logits_of(pillow, tables, twin):
    return lambda pixels: twin(tables(pillow(pixels, 10, 8)))


def write_ppm(path, pixels, header=b"P6\n%d %d\n255\n", tail=b""):
    path.write_bytes(header % (pixels.shape[1], pixels.shape[0]) + pixels.tobytes() + tail)
    return path


def write_npy(path, array, version=(1, 0)):
    with path.open("wb") as file:
        np.lib.format.write_array(file, array, version=version)
    return path


def top_logits(result):
    return [{t["class"]: t["logit"] for t in image["top"]} for image in result.json()["images"]]


def assert_logits(result, expected):
    got = [[image[k] for k in range(4)] for image in top_logits(result)]
    np.testing.assert_allclose(got, expected, rtol=1e-7)


HEADERS = [
    b"P6 %d %d 255\n",
    b"P6\n# made by hand\n%d # width\n%d\n#\n255\n",
    b"P6\r\n%d\t%d\n255 ",
    b"P6#c\n#d\n%d\n\n%d\n255\n",
]


@pytest.mark.parametrize("header", HEADERS)
def test_ppm_headers(cli, tmp_path, pixels, logits_of, header):
    result = cli("--json", write_ppm(tmp_path / "a.ppm", pixels, header, tail=b"\n"))
    assert (result.code, result.err) == (0, "")
    assert_logits(result, [logits_of(pixels)])


def test_pgm_counts_for_all_channels(cli, tmp_path, pixels, logits_of):
    grey = pixels[..., :1]
    result = cli("--json", write_ppm(tmp_path / "a.pgm", grey, b"P5 %d %d 255\n"))
    assert_logits(result, [logits_of(np.repeat(grey, 3, axis=2))])


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_npy_images_and_batches_run_one_by_one(cli, tmp_path, pixels, logits_of, version):
    batch = np.stack([pixels, 255 - pixels, pixels // 2])
    one = write_npy(tmp_path / "one.npy", pixels, version)
    many = write_npy(tmp_path / "many.npy", batch, version)
    result = cli("--json", one, many)
    assert_logits(result, [logits_of(p) for p in (pixels, *batch)])
    assert [i["index"] for i in result.json()["images"]] == [0, 0, 1, 2]
    assert [i["file"] for i in result.json()["images"]] == [str(one), str(many), str(many), str(many)]


@pytest.mark.parametrize("shape", [(8, 8, 3), (1, 8, 8, 3), (2, 8, 8, 3)])
def test_npy_network_input_skips_preprocessing(cli, tmp_path, twin, shape):
    x = np.random.default_rng(2).integers(-128, 128, shape, dtype=np.int8)
    result = cli("--json", write_npy(tmp_path / "x.npy", x))
    assert_logits(result, [twin(row) for row in x.reshape(-1, 8, 8, 3)])


def test_a_float_model_takes_float_network_input(build_cli, tmp_path):
    program = build_cli("tiny_f32", "-DTINY_MODEL=enx_model_tiny_f32")
    x = np.random.default_rng(2).uniform(-3, 3, (8, 8, 3)).astype(np.float32)
    result = program("--json", write_npy(tmp_path / "x.npy", x))
    assert_logits(result, [0.5 * (np.trunc(x.reshape(-1)[:4] * np.float32(32)) - 3)])
    refusal = program(write_npy(tmp_path / "q.npy", x.astype(np.int8)))
    assert refusal.code == 2 and "'|i1'; allowed are uint8 '|u1' (images) and float32 '<f4'" in refusal.err


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 16])
def test_threads_do_not_change_a_bit(cli, tmp_path, pixels, threads):
    images = [write_npy(tmp_path / "b.npy", np.stack([pixels] * 3 + [255 - pixels]))]
    dumps = []
    for n in (1, threads):
        assert cli("--threads", n, "--repeat", 5, "--dump", tmp_path / "d.npy", *images).code == 0
        dumps.append((tmp_path / "d.npy").read_bytes())
    assert dumps[0] == dumps[1]


def test_dump_holds_all_logits_in_order(cli, tmp_path, pixels, logits_of):
    images = [
        write_ppm(tmp_path / "a.ppm", pixels),
        write_npy(tmp_path / "b.npy", np.stack([255 - pixels, pixels])),
    ]
    assert cli("--dump", tmp_path / "d.npy", *images).code == 0
    dump = np.load(tmp_path / "d.npy")
    assert (dump.dtype, dump.shape) == (np.float32, (3, 4))
    np.testing.assert_array_equal(dump, [logits_of(pixels), logits_of(255 - pixels), logits_of(pixels)])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.ppm", "b.npy", "d.npy"]


def test_top_lists_the_best_classes_with_names_and_softmax(cli, tmp_path, pixels, logits_of):
    logits = logits_of(pixels).astype(np.float64)
    order = np.argsort(-logits)[:2]
    softmax = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    path = write_ppm(tmp_path / "a.ppm", pixels)
    top = cli("--json", "--top", 2, path).json()["images"][0]["top"]
    assert [t["class"] for t in top] == order.tolist()
    assert [t["name"] for t in top] == [["ant", 'bee "striped"', "cat", "dog"][i] for i in order]
    np.testing.assert_allclose([t["probability"] for t in top], softmax[order], rtol=1e-6)
    text = cli("--top", 2, path).out.splitlines()
    assert text[0] == f"{path}: 40 x 30 pixels" and len(text) == 3
    assert f"class    {order[0]}" in text[1] and f"{logits[order[0]]:.4f}" in text[1]


def test_equal_logits_are_ordered_by_class(cli, tmp_path):
    """Input 0: rows contribute the same to no class in particular; the order must still be fixed."""
    path = write_npy(tmp_path / "x.npy", np.zeros((8, 8, 3), np.int8))
    top = cli("--json", path).json()["images"][0]["top"]
    assert [(-t["logit"], t["class"]) for t in top] == sorted((-t["logit"], t["class"]) for t in top)


def test_benchmark_reports_median_and_least_time(cli, tmp_path, pixels):
    path = write_ppm(tmp_path / "a.ppm", pixels)
    found = cli("--json", "--benchmark", "--repeat", 7, "--threads", 2, path).json()
    assert (found["threads"], found["repeat"], found["benchmark"]["runs"]) == (2, 7, 7)
    assert 0 < found["benchmark"]["min_us"] <= found["benchmark"]["median_us"]
    assert found["benchmark"]["preprocess_median_us"] > 0
    line = cli("--benchmark", "--repeat", 7, path).out.splitlines()[-1]
    assert line.startswith("benchmark: median ") and "threads 1, repeat 7, preprocessing median" in line


def test_benchmark_and_profile_need_no_image(cli):
    found = cli("--json", "--benchmark", "--profile").json()
    assert found["images"] == [] and found["benchmark"]["runs"] == 50
    assert "preprocess_median_us" not in found["benchmark"]


def test_profile_lists_steps_in_order_and_layers_by_time(cli):
    profile = cli("--json", "--profile", "--repeat", 20).json()["profile"]
    assert [(s["layer"], s["kernel"], s["macs"]) for s in profile["steps"]] == [
        ("stem.0", "double", 192), ("head.fc", "dense", 768),
    ]  # fmt: skip
    assert sum(s["share"] for s in profile["steps"]) == pytest.approx(1)
    assert sum(s["us"] for s in profile["steps"]) == pytest.approx(profile["total_us"])
    times = [layer["us"] for layer in profile["layers"]]
    assert times == sorted(times, reverse=True) and len(times) == 2
    text = cli("--profile").out
    assert text.index("steps in order") < text.index("layers by time") and "1x8x8x3 -> 1x8x8x3" in text


def test_steps_of_one_layer_are_added_up(build_cli):
    program = build_cli("tiny_f32_profile", "-DTINY_MODEL=enx_model_tiny_f32")
    profile = program("--json", "--profile").json()["profile"]
    assert len(profile["steps"]) == 2 and len(profile["layers"]) == 1
    assert profile["layers"][0]["us"] == pytest.approx(sum(s["us"] for s in profile["steps"]))


def test_an_image_larger_than_the_models_arena_can_resize(cli, tmp_path, logits_of):
    """The program adds the scratch that enx_preprocess_scratch_bytes asks for."""
    pixels = np.random.default_rng(0).integers(0, 256, (2000, 3000, 3), dtype=np.uint8)
    result = cli("--json", write_npy(tmp_path / "a.npy", pixels))
    assert_logits(result, [logits_of(pixels)])


def test_nothing_is_allocated_inside_an_inference(build_cli, compile_sources, tmp_path, pixels, request):
    here = request.path.parent
    wrap = ("-Wl,--wrap=enx_run,--wrap=enx_preprocess_rgb8",)
    path = write_npy(tmp_path / "b.npy", np.stack([pixels] * 4))
    program = build_cli("tiny_counted", *wrap, extra=(here / "count_allocations.c",))
    result = program("--threads", 3, "--repeat", 3, path)
    assert (result.code, result.err) == (0, "inferences 16 inside 0 outside some\n")
    leaky = build_cli("tiny_leaky", *wrap, "-DALLOCATE_INSIDE", extra=(here / "count_allocations.c",))
    assert leaky(path).err == "inferences 8 inside 8 outside some\n", "the counter does see allocations"
