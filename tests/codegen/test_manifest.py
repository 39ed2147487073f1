from __future__ import annotations

import json

import pytest

from edgenext_tvm.codegen import manifest
from edgenext_tvm.codegen.manifest import FileEntry, LayerEntry, Manifest, load_manifest
from edgenext_tvm.errors import UserError


@pytest.fixture
def example() -> Manifest:
    return Manifest(
        project_version="0.1.0",
        versions={"torch": "2.13.0"},
        name="net",
        model="net",
        precision="int8",
        board="rpi4",
        isa="aarch64",
        target={"mcpu": "cortex-a72"},
        input_shape=(1, 4, 4, 3),
        input_dtype="int8",
        num_classes=8,
        preprocessing={"resize_size": 5, "crop_size": 4},
        recipe={},
        weights_sha256="",
        constants_sha256="0" * 64,
        arena_bytes=128,
        arena_lower_bound_bytes=128,
        flash_bytes=30,
        text_bytes=10,
        rodata_bytes=20,
        constant_bytes=20,
        macs=5,
        kernel_calls=1,
        distinct_kernels=1,
        golden_vectors=0,
        layers=(LayerEntry(layer="stem", kernel="dense", function="f", detail="a -> b", macs=5, extent=4),),
        objects={},
        files={"lib/libnet.a": FileEntry(bytes=3, sha256="1" * 64)},
    )


def test_a_manifest_reads_back_from_file_and_folder(example, tmp_path):
    (tmp_path / manifest.FILE_NAME).write_text(example.to_json())
    assert load_manifest(tmp_path) == load_manifest(tmp_path / manifest.FILE_NAME) == example
    assert load_manifest(tmp_path).load_preprocessing().crop_size == 4


def test_the_text_is_canonical(example):
    assert example.to_json() == Manifest.model_validate_json(example.to_json()).to_json()


def test_a_missing_manifest_is_named(tmp_path):
    with pytest.raises(UserError, match=r"manifest.json not found; give a folder written by `edgenext-tvm compile`"):
        load_manifest(tmp_path)


def test_a_truncated_manifest_is_named(example, tmp_path):
    path = tmp_path / manifest.FILE_NAME
    path.write_text(example.to_json()[:-40])
    with pytest.raises(UserError, match=r"manifest.json is damaged or no JSON .*compile again"):
        load_manifest(tmp_path)


@pytest.mark.parametrize("content", [{"name": "some-npm-package"}, [1, 2]])
def test_a_foreign_file_is_named(content, tmp_path):
    path = tmp_path / manifest.FILE_NAME
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"is not a build manifest .*expected 'edgenext_tvm build'"):
        load_manifest(path)


def test_a_newer_format_is_named(example, tmp_path):
    path = tmp_path / manifest.FILE_NAME
    path.write_text(json.dumps({**json.loads(example.to_json()), "format_version": 9}))
    with pytest.raises(UserError, match="has format version 9; this program reads version 1; .*or compile again"):
        load_manifest(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arena_bytes": -1}, "arena_bytes: Input should be greater than or equal to 0"),
        ({"surprise": 1}, "surprise: Extra inputs are not permitted"),
        ({"preprocessing": {"resize_size": 5, "crop_size": "x"}}, "manifest.json: crop_size: Input should be a valid"),
        ({"constants_sha256": "xyz"}, "constants_sha256: String should match pattern"),
    ],
)
def test_a_wrong_field_is_named(example, tmp_path, change, message):
    path = tmp_path / manifest.FILE_NAME
    path.write_text(json.dumps({**json.loads(example.to_json()), **change}))
    with pytest.raises(UserError, match=message):
        load_manifest(path)


def test_versions_of_the_pinned_packages_are_recorded():
    versions = manifest.package_versions()
    assert versions["apache-tvm"] == "0.27.0.post1"
    assert versions["apache-tvm-ffi"] == "0.1.14.post1"
