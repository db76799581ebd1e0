import struct

import grpc
import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from engines.base import DTYPES, Signature, TensorSpec
from headrace.inference import open_inference_pb2 as pb
from services.chassis import tensors
from services.chassis.errors import ServiceError
from services.chassis.tensors import TYPED_FIELDS, TensorCodec

NUMERIC = sorted(set(DTYPES) - {"BYTES"})


def codec(datatype="FP32", shape=("batch", 4), *more, batchable=True):
    specs = (TensorSpec("x", datatype, shape), *more)
    return TensorCodec(Signature(specs, (), batchable))


def raw_request(*inputs):
    request = pb.ModelInferRequest()
    for name, datatype, shape, raw in inputs:
        request.inputs.add(name=name, datatype=datatype, shape=shape)
        request.raw_input_contents.append(raw)
    return request


def refused(codec, request):
    with pytest.raises(ServiceError) as caught:
        codec.decode(request)
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
    return caught.value.metadata["field"], caught.value.message


@given(
    st.sampled_from(NUMERIC).flatmap(
        lambda name: st.tuples(
            st.just(name), hnp.arrays(DTYPES[name], hnp.array_shapes(min_dims=2, max_dims=3, max_side=5))
        )
    )
)
@settings(deadline=None, max_examples=150)
def test_raw_tensors_survive_the_round_trip(case):
    datatype, array = case
    read = codec(datatype, ("batch", *array.shape[1:])).decode(
        raw_request(("x", datatype, array.shape, tensors.encode(array)))
    )
    assert read.rows == len(array)
    assert read.inputs["x"].dtype == DTYPES[datatype]
    np.testing.assert_array_equal(read.inputs["x"], array)


def test_raw_contents_are_read_in_place():
    request = raw_request(("x", "FP32", [2, 4], np.arange(8, dtype=np.float32).tobytes()))
    array = codec().decode(request).inputs["x"]
    assert not array.flags.owndata
    assert not array.flags.writeable


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=8))
@settings(deadline=None)
def test_bytes_tensors_survive_the_round_trip(items):
    array = np.empty((len(items), 1), dtype=object)
    array[:, 0] = items
    read = codec("BYTES", ("batch", 1)).decode(raw_request(("x", "BYTES", array.shape, tensors.encode(array))))
    assert read.inputs["x"].tolist() == array.tolist()


def test_bytes_are_length_prefixed_little_endian():
    array = np.array([b"a", b"bcd"], dtype=object)
    assert tensors.encode(array).hex() == "010000006103000000626364"
    assert tensors.encode(np.array(["é"], dtype=object)) == b"\x02\0\0\0\xc3\xa9"


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"\x01\0\0\0a", "too few"),
        (b"\x01\0\0\0a\x09\0\0\0b", "ends within element 1"),
        (b"\x05\0\0\0abcde\x01\0\0", "ends within the length of element 1"),
        (b"\x01\0\0\0a\x01\0\0\0bzz", "2 bytes after the last element"),
        (b"\xff\xff\xff\xff" + b"a" * 8, "ends within element 0"),
    ],
)
def test_broken_bytes_tensors_are_named(raw, words):
    field, message = refused(codec("BYTES", ("batch", 1)), raw_request(("x", "BYTES", [2, 1], raw)))
    assert field == "raw_input_contents[0]"
    assert words in message


@pytest.mark.parametrize("datatype", sorted(TYPED_FIELDS))
def test_typed_contents_of_every_datatype(datatype):
    values = [b"a", b"", b"b", b"c"] if datatype == "BYTES" else [1, 0, 1, 1]
    request = pb.ModelInferRequest()
    tensor = request.inputs.add(name="x", datatype=datatype, shape=[1, 4])
    getattr(tensor.contents, TYPED_FIELDS[datatype]).extend(values)
    read = codec(datatype).decode(request).inputs["x"]
    assert read.dtype == DTYPES[datatype]
    assert read.tolist() == [values]


@pytest.mark.parametrize(
    ("datatype", "value"), [("INT8", 128), ("INT8", -129), ("INT16", 40000), ("UINT8", 256), ("UINT16", 70000)]
)
def test_typed_values_that_do_not_fit_are_refused(datatype, value):
    request = pb.ModelInferRequest()
    tensor = request.inputs.add(name="x", datatype=datatype, shape=[1, 4])
    getattr(tensor.contents, TYPED_FIELDS[datatype]).extend([0, 0, 0, value])
    field, message = refused(codec(datatype), request)
    assert field == f"inputs[0].contents.{TYPED_FIELDS[datatype]}"
    assert "are allowed" in message


def test_typed_contents_in_the_wrong_field_or_of_no_field():
    request = pb.ModelInferRequest()
    request.inputs.add(name="x", datatype="FP32", shape=[1, 4]).contents.fp64_contents.extend([1, 2, 3, 4])
    assert refused(codec(), request)[0] == "inputs[0].contents.fp32_contents"
    request.inputs[0].datatype = "FP16"
    field, message = refused(codec("FP16"), request)
    assert field == "inputs[0].contents"
    assert "raw_input_contents" in message


@pytest.mark.parametrize(
    "shape",
    [
        [],
        [4],
        [1, 5],
        [0, 4],
        [-1, 4],
        [1, 4, 1],
        [10**18, 4],
        [2**62, 2**62],
        [-(2**63), 4],
        [2**63 - 1, 4],
        [1] * 300,
    ],
)
def test_shapes_that_do_not_fit_the_model_are_refused(shape):
    for raw in (b"", b"\0" * 16):
        field, message = refused(codec(), raw_request(("x", "FP32", shape, raw)))
        assert field in {"inputs[0].shape", "raw_input_contents[0]"}
        assert len(message) < 700


@pytest.mark.parametrize("shape", [[1, -1, 3], [1, 10**18, 10**18], [1, 0, 10**18], [1, 2**31 - 1, 2**31 - 1]])
def test_free_dimensions_cannot_overflow(shape):
    field, _ = refused(codec("FP32", ("batch", "h", "w")), raw_request(("x", "FP32", shape, b"\0" * 12)))
    assert field in {"inputs[0].shape", "raw_input_contents[0]"}


def test_empty_with_an_impossible_shape_is_refused():
    free = codec("FP32", ("batch", "a", "b", "c", "d"))
    shape = [1, 0, 2**31 - 1, 2**31 - 1, 2**31 - 1]
    assert refused(free, raw_request(("x", "FP32", shape, b"")))[0] == "inputs[0].shape"


def test_a_free_dimension_may_be_empty():
    request = pb.ModelInferRequest()
    request.inputs.add(name="x", datatype="FP32", shape=[2, 0])
    assert codec("FP32", ("batch", "n")).decode(request).inputs["x"].shape == (2, 0)


def test_a_named_dimension_has_one_size():
    two = codec("INT64", ("batch", "length"), TensorSpec("mask", "INT64", ("batch", "length")))
    ok = raw_request(("x", "INT64", [1, 2], b"\0" * 16), ("mask", "INT64", [1, 2], b"\0" * 16))
    assert set(two.decode(ok).inputs) == {"x", "mask"}
    bad = raw_request(("x", "INT64", [1, 2], b"\0" * 16), ("mask", "INT64", [1, 3], b"\0" * 24))
    assert refused(two, bad)[0] == "inputs[1].shape[1]"
    plain = codec("FP32", ("batch", 1), TensorSpec("z", "FP32", ("batch", 1)))
    rows = raw_request(("x", "FP32", [1, 1], b"\0" * 4), ("z", "FP32", [2, 1], b"\0" * 8))
    assert refused(plain, rows)[0] == "inputs[1].shape[0]"


def test_names_counts_and_datatypes():
    four = b"\0" * 16
    one, two = codec(), codec("FP32", ("batch", 4), TensorSpec("z", "FP32", ("batch", 4)))
    x = ("x", "FP32", [1, 4], four)
    assert refused(one, pb.ModelInferRequest())[0] == "inputs"
    assert "'z'" in refused(two, raw_request(x))[1]
    assert refused(two, raw_request(x, x))[0] == "inputs[1].name"
    assert "twice" in refused(two, raw_request(x, x))[1]
    assert refused(one, raw_request(x, ("q", "FP32", [1, 4], four)))[0] == "inputs[1].name"
    assert refused(one, raw_request(("x", "FP64", [1, 4], four)))[0] == "inputs[0].datatype"
    assert "BF16 is not served" in refused(one, raw_request(("x", "BF16", [1, 4], four)))[1]
    assert refused(one, raw_request(("x", "FP32", [1, 4], four[1:])))[0] == "raw_input_contents[0]"
    extra = raw_request(x)
    extra.raw_input_contents.append(b"")
    assert refused(one, extra)[0] == "raw_input_contents"


def test_raw_and_typed_contents_do_not_mix():
    request = raw_request(("x", "FP32", [1, 4], b"\0" * 16))
    request.inputs[0].contents.fp32_contents.extend([1, 2, 3, 4])
    assert refused(codec(), request)[0] == "inputs[0].contents"


def test_shared_memory_is_refused():
    request = raw_request(("x", "FP32", [1, 4], b"\0" * 16))
    request.inputs[0].parameters["shared_memory_region"].string_param = "r"
    assert refused(codec(), request)[0] == "inputs[0].parameters"


def test_bools_are_zero_or_one_whatever_was_sent():
    read = codec("BOOL").decode(raw_request(("x", "BOOL", [1, 4], b"\x00\x01\x02\xff"))).inputs["x"]
    assert read.tolist() == [[False, True, True, True]]


def test_a_model_without_rows_takes_its_tensors_whole():
    read = codec("FP32", (2, "n"), batchable=False).decode(raw_request(("x", "FP32", [2, 3], b"\0" * 24)))
    assert read.rows == 1
    assert read.inputs["x"].shape == (2, 3)


def test_classification_is_best_first_with_labels():
    scores = np.array([[0.1, 0.7, 0.2], [3, 2, 1]], np.float32)
    answer = tensors.classification(scores, 2, ["cat", "dog"], batchable=True)
    assert answer.tolist() == [[b"0.700000:1:dog", b"0.200000:2"], [b"3.000000:0:cat", b"2.000000:1:dog"]]
    assert tensors.classification(scores[0], 9, [], batchable=False).shape == (3,)


@given(st.binary(max_size=200))
@settings(deadline=None, max_examples=200)
def test_random_requests_are_answered_or_refused(data):
    request = pb.ModelInferRequest()
    try:
        request.ParseFromString(data)
    except DecodeError:
        return
    _never_crashes(request)


tensor = st.builds(
    lambda name, datatype, shape, values: pb.ModelInferRequest.InferInputTensor(
        name=name, datatype=datatype, shape=shape, contents=pb.InferTensorContents(fp32_contents=values)
    ),
    st.sampled_from(["x", "b", "", "q"]),
    st.sampled_from(["FP32", "BYTES", "INT8", "BF16", ""]),
    st.lists(st.one_of(st.integers(-2, 5), st.integers(-(2**63), 2**63 - 1)), max_size=4),
    st.lists(st.floats(width=32), max_size=4),
)
raws = st.lists(st.one_of(st.binary(max_size=40), st.builds(lambda n: struct.pack("<I", n), st.integers(0, 2**32 - 1))))


@given(st.lists(tensor, max_size=3), raws)
@settings(deadline=None, max_examples=300)
def test_requests_that_almost_fit_are_answered_or_refused(inputs, raw):
    _never_crashes(pb.ModelInferRequest(inputs=inputs, raw_input_contents=raw))


def _never_crashes(request):
    for one in (codec(), codec("BYTES", ("batch", "n")), codec("FP32", ("batch", "h", "w"))):
        try:
            one.decode(request)
        except ServiceError as error:
            assert error.code is grpc.StatusCode.INVALID_ARGUMENT  # noqa: PT017  # Either outcome is right.
