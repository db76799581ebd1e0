import asyncio
import queue

import grpc
import numpy as np
import pytest
import tritonclient.grpc as sync
from tritonclient.grpc import aio
from tritonclient.utils import InferenceServerException

from tests.serving import serving
from tests.vision import tiny_models


@pytest.fixture
def models(tmp_path):
    tiny_models.add_double(tmp_path)
    tiny_models.add_colours(tmp_path)
    tiny_models.add_texts(tmp_path)
    tiny_models.add_whole(tmp_path)
    return tmp_path


def tensor(name, array, datatype=None, client=aio):
    made = client.InferInput(name, list(array.shape), datatype or "FP32")
    made.set_data_from_numpy(array)
    return made


async def test_every_call_of_the_sync_client(models):
    async with serving("vision", models) as served:
        await asyncio.to_thread(use_sync_client, served.address)


def use_sync_client(address):
    client = sync.InferenceServerClient(address)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("double")
    assert client.is_model_ready("double", "1")
    about = client.get_server_metadata(as_json=True)
    assert about["name"] == "headrace"
    assert {"statistics", "model_configuration", "classification", "model_repository"} <= set(about["extensions"])
    described = client.get_model_metadata("double", as_json=True)
    assert described["inputs"] == [{"name": "x", "datatype": "FP32", "shape": ["-1", "16"]}]
    assert described["platform"] == "onnxruntime_onnx"
    assert described["versions"] == ["1"]
    config = client.get_model_config("double", as_json=True)["config"]
    assert config["max_batch_size"] == 8
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": ["16"]}]
    assert "dynamic_batching" in config
    x = np.arange(32, dtype=np.float32).reshape(2, 16)
    answer = client.infer("double", [tensor("x", x, client=sync)], request_id="r1")
    np.testing.assert_array_equal(answer.as_numpy("y"), 2 * x)
    said = answer.get_response()
    assert said.id == "r1"
    assert said.model_version == "1"
    assert said.parameters["headrace_batch_rows"].int64_param == 2
    assert said.parameters["headrace_engine_ms"].double_param > 0
    states = client.get_model_repository_index(as_json=True)["models"]
    assert {(model["name"], model["state"]) for model in states} == {
        (name, "READY") for name in ("double", "colours", "texts", "whole")
    }
    counts = client.get_inference_statistics("double", as_json=True)["model_stats"][0]
    assert counts["inference_count"] == "2"
    assert counts["execution_count"] == "1"
    assert counts["inference_stats"]["success"]["count"] == "1"
    assert int(counts["inference_stats"]["compute_infer"]["ns"]) > 0
    assert counts["batch_stats"][0]["batch_size"] == "2"
    assert len(client.get_inference_statistics(as_json=True)["model_stats"]) == 4
    client.close()


async def test_the_sync_client_unloads_and_loads_models(models):
    async with serving("vision", models) as served:
        await asyncio.to_thread(unload_and_load, served.address)


def unload_and_load(address):
    x = [tensor("x", np.ones((1, 16), np.float32), client=sync)]
    client = sync.InferenceServerClient(address)
    client.unload_model("double")
    assert not client.is_model_ready("double")
    with pytest.raises(InferenceServerException, match="headrace models load double"):
        client.infer("double", x)
    reasons = {model.name: model.reason for model in client.get_model_repository_index().models}
    assert "it was unloaded" in reasons["double"]
    assert reasons["colours"] == ""
    client.load_model("double")
    assert client.is_model_ready("double")
    assert client.infer("double", x).as_numpy("y")[0, 0] == 2.0
    for change in (client.load_model, client.unload_model):
        with pytest.raises(InferenceServerException, match=r"NOT_FOUND.*did you mean double"):
            change("dubble")
    with pytest.raises(InferenceServerException, match=r"INVALID_ARGUMENT.*put files into the model repository"):
        client.load_model("double", config="{}")
    client.close()


async def test_bytes_halves_and_models_without_rows(models):
    async with serving("vision", models) as served, aio.InferenceServerClient(served.address) as client:
        texts = np.array([["héllo".encode()], [b""]], dtype=object)
        answer = await client.infer("texts", [tensor("text", texts, "BYTES")])
        assert answer.as_numpy("same").tolist() == texts.tolist()
        half = np.arange(6, dtype=np.float16).reshape(2, 3)
        answer = await client.infer("whole", [tensor("a", half, "FP16"), tensor("b", half, "FP16")])
        np.testing.assert_array_equal(answer.as_numpy("c"), half + half)
        assert (await client.get_model_config("whole")).config.max_batch_size == 0


async def test_wanted_outputs_and_classification(models):
    async with serving("vision", models) as served, aio.InferenceServerClient(served.address) as client:
        pixels = np.zeros((2, 3, 8, 8), np.float32)
        pixels[0, 1], pixels[1, 2] = 1.0, 1.0
        inputs = [tensor("x", pixels)]
        only = await client.infer("colours", inputs, outputs=[aio.InferRequestedOutput("features")])
        assert only.as_numpy("logits") is None
        assert only.as_numpy("features").argmax(axis=1).tolist() == [1, 2]
        wanted = [
            aio.InferRequestedOutput("logits", class_count=2),
            aio.InferRequestedOutput("features", class_count=1),
        ]
        top = await client.infer("colours", inputs, outputs=wanted)
        assert top.as_numpy("logits").tolist()[0] == [b"20.000000:1:green", b"0.000000:0:red"]
        assert top.as_numpy("features").tolist() == [[b"1.000000:1"], [b"1.000000:2"]]


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"model": "doubel"}, "NOT_FOUND", "double"),
        ({"model": "\U0001f600/../x\n"}, "NOT_FOUND", "no model"),
        ({"version": "9"}, "NOT_FOUND", "double@1"),
        ({"version": "-1"}, "NOT_FOUND", "double@-1"),
        ({"outputs": ["z"]}, "INVALID_ARGUMENT", r"outputs\[0\].name"),
        ({"outputs": ["y", "y"]}, "INVALID_ARGUMENT", "twice"),
        ({"parameters": {"timeout": "soon"}}, "INVALID_ARGUMENT", "timeout"),
        ({"dtype": np.float64}, "INVALID_ARGUMENT", r"inputs\[0\].datatype"),
        ({"shape": (1, 15)}, "INVALID_ARGUMENT", r"inputs\[0\].shape"),
        ({"sequence_id": 7}, "INVALID_ARGUMENT", "sequence"),
        ({"timeout": 1}, "DEADLINE_EXCEEDED", "deadline"),
    ],
)
async def test_what_a_wrong_request_hears(models, change, status, words):
    array = np.ones(change.get("shape", (1, 16)), change.get("dtype", np.float32))
    names = {np.float32: "FP32", np.float64: "FP64"}
    inputs = [tensor("x", array, names[change.get("dtype", np.float32)])]
    outputs = [aio.InferRequestedOutput(name) for name in change.get("outputs", [])]
    extra = {key: change[key] for key in ("sequence_id", "timeout") if key in change}
    async with serving("vision", models) as served, aio.InferenceServerClient(served.address) as client:
        with pytest.raises((InferenceServerException, ValueError), match=words) as caught:
            await client.infer(
                change.get("model", "double"),
                inputs,
                change.get("version", ""),
                outputs or None,
                parameters=change.get("parameters"),
                **extra,
            )
        if isinstance(caught.value, InferenceServerException) and caught.value.status():
            assert caught.value.status() == f"StatusCode.{status}"
        answer = await client.infer("double", [tensor("x", np.ones((1, 16), np.float32))])
        assert answer.as_numpy("y").max() == 2


async def test_model_ready_of_an_unknown_model_is_not_found(models):
    async with serving("vision", models) as served, aio.InferenceServerClient(served.address) as client:
        with pytest.raises(InferenceServerException, match="there is no model 'nothing'"):
            await client.is_model_ready("nothing")
        with pytest.raises(InferenceServerException, match="NOT_FOUND"):
            await client.get_model_metadata("double", "3")
        with pytest.raises(grpc.aio.AioRpcError, match="one repository"):
            await client._client_stub.RepositoryIndex(  # The wrapper does not offer the field.
                sync.service_pb2.RepositoryIndexRequest(repository_name="other")
            )


async def test_versions_live_side_by_side(tmp_path):
    tiny_models.add_double(tmp_path, (1, 3))
    async with serving("vision", tmp_path) as served, aio.InferenceServerClient(served.address) as client:
        inputs = [tensor("x", np.ones((1, 16), np.float32))]
        newest = await client.infer("double", inputs)
        oldest = await client.infer("double", inputs, "1")
        named = await client.infer("double@1", inputs)
        assert [answer.get_response().model_version for answer in (newest, oldest, named)] == ["3", "1", "1"]
        assert (await client.get_model_metadata("double")).versions == ["1", "3"]


async def test_a_work_larger_than_a_batch(models):
    x = np.random.default_rng(0).standard_normal((50, 16)).astype(np.float32)
    async with serving("vision", models) as served, aio.InferenceServerClient(served.address) as client:
        answer = await client.infer("double", [tensor("x", x)])
        np.testing.assert_array_equal(answer.as_numpy("y"), 2 * x)


async def test_a_sync_stream_of_good_and_bad_items(models):
    async with serving("vision", models) as served:
        await asyncio.to_thread(use_sync_stream, served.address)


def use_sync_stream(address):
    answers = queue.Queue()
    client = sync.InferenceServerClient(address)
    client.start_stream(lambda result, error: answers.put((result, error)))
    x = np.ones((1, 16), np.float32)
    for number in range(20):
        client.async_stream_infer(
            "nothing" if number == 7 else "double",
            [tensor("x", x * number, client=sync)],
            request_id=str(number),
            enable_empty_final_response=True,
        )
    got, failed = {}, []
    for _ in range(20):
        result, error = answers.get(timeout=20)
        if error is not None:
            failed.append(str(error))
        else:
            said = result.get_response()
            assert said.parameters["triton_final_response"].bool_param
            got[said.id] = result.as_numpy("y")[0, 0]
    client.stop_stream()
    client.close()
    assert len(failed) == 1
    assert "there is no model 'nothing'" in failed[0]
    assert got == {str(number): 2 * number for number in range(20) if number != 7}


async def test_an_aio_stream_names_any_model(models):
    async def requests():
        for number in range(6):
            if number % 2:
                yield {
                    "model_name": "colours",
                    "inputs": [tensor("x", np.ones((1, 3, 8, 8), np.float32))],
                    "request_id": str(number),
                }
            else:
                yield {
                    "model_name": "double",
                    "inputs": [tensor("x", np.ones((1, 16), np.float32))],
                    "request_id": str(number),
                }

    async with serving("vision", models) as served, aio.InferenceServerClient(served.address) as client:
        seen = {}
        async for result, error in client.stream_infer(requests()):
            assert error is None
            seen[result.get_response().id] = result.get_response().model_name
    assert seen == {str(number): "colours" if number % 2 else "double" for number in range(6)}
