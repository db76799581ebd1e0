import asyncio
import random

import grpc
import numpy as np
import pytest
from google.rpc import code_pb2, error_details_pb2

from headrace.nlp.v1 import nlp_pb2 as pb
from tests.nlp import tiny_models
from tests.serving import serving


def stub(channel, method, response):
    return channel.unary_unary(
        f"/headrace.nlp.v1.NlpService/{method}",
        request_serializer=lambda message: message if isinstance(message, bytes) else message.SerializeToString(),
        response_deserializer=response.FromString,
    )


def embed(channel):
    return stub(channel, "Embed", pb.EmbedTextsResponse)


def classify(channel):
    return stub(channel, "ClassifyText", pb.ClassifyTextResponse)


def rerank(channel):
    return stub(channel, "Rerank", pb.RerankResponse)


def vectors(answer):
    return np.array([result.embedding.values for result in answer.results])


async def refused(awaitable, code):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await awaitable
    assert caught.value.code() is code
    return caught.value.details()


@pytest.fixture
def models(tmp_path):
    tiny_models.add_embedder(tmp_path)
    tiny_models.add_classifier(tmp_path)
    tiny_models.add_cross_encoder(tmp_path)
    return tmp_path


async def test_texts_become_unit_vectors(models):
    async with serving("nlp", models) as served, grpc.aio.insecure_channel(served.address) as channel:
        call = embed(channel)(pb.EmbedTextsRequest(texts=["good", "bad shoe", "", "good " * 50]))
        answer = await call
        headers = dict(await call.initial_metadata())
    np.testing.assert_allclose(vectors(answer), [[1, 0, 0], [0, 0.5**0.5, 0.5**0.5], [0, 0, 0], [1, 0, 0]], atol=1e-6)
    assert [result.token_count for result in answer.results] == [3, 4, 2, 16]
    assert (answer.model.name, answer.model.version) == ("states", "1")
    assert headers["headrace-model"] == "states@1"
    assert float(headers["headrace-engine-ms"]) > 0


async def test_pooling_by_the_first_token(models):
    tiny_models.add_embedder(models, "first", "cls")
    async with serving("nlp", models) as served, grpc.aio.insecure_channel(served.address) as channel:
        answer = await embed(channel)(pb.EmbedTextsRequest(texts=["good"], model="first"))
    assert vectors(answer).tolist() == [[0, 0, 0]]  # The first token is [CLS].


async def test_the_receipt_tells_padding(models):
    """13 and 16 of 16 tokens in one run."""
    async with serving("nlp", models) as served, grpc.aio.insecure_channel(served.address) as channel:
        call = embed(channel)(pb.EmbedTextsRequest(texts=["good " * 11, "good " * 14]))
        await call
        headers = dict(await call.initial_metadata())
    assert headers["headrace-batch-rows"] == "2"
    assert float(headers["headrace-padding-ratio"]) == pytest.approx(3 / 32, abs=1e-3)


async def test_without_truncation_a_long_text_fails_alone(models):
    request = pb.EmbedTextsRequest(texts=["good " * 14, "good " * 15, "bad"], no_truncate=True)
    async with serving("nlp", models) as served, grpc.aio.insecure_channel(served.address) as channel:
        answer = await embed(channel)(request)
    fits, long, short = answer.results
    assert (fits.token_count, short.token_count) == (16, 3)
    assert long.error.code == code_pb2.INVALID_ARGUMENT
    assert long.error.message.startswith("texts[1]: is longer than the 16 tokens that model states reads")
    assert not long.HasField("embedding")


async def test_a_text_of_too_many_bytes_fails_alone(models):
    texts = ["good", "猫" * 40, "bad"]
    async with (
        serving("nlp", models, {"services.nlp.max_text_bytes": 100}) as served,
        grpc.aio.insecure_channel(served.address) as channel,
    ):
        embedded = (await embed(channel)(pb.EmbedTextsRequest(texts=texts))).results
        labelled = (await classify(channel)(pb.ClassifyTextRequest(texts=texts))).results
        only_bad = (await embed(channel)(pb.EmbedTextsRequest(texts=texts[1:2]))).results
    for results in (embedded, labelled):
        assert [result.error.code for result in results] == [0, code_pb2.INVALID_ARGUMENT, 0]
        assert results[1].error.message == "texts[1]: has 120 bytes, at most 100 are accepted: send less"
        violations = error_details_pb2.BadRequest()
        assert any(detail.Unpack(violations) for detail in results[1].error.details)
        assert violations.field_violations[0].field == "texts[1]"
    assert only_bad[0].error.code == code_pb2.INVALID_ARGUMENT


async def test_a_text_that_the_engine_fails_on_fails_alone(models):
    """The network knows no cats, which its tokenizer does."""
    texts = ["good", "bad", "猫", "shoe", "good"]
    async with serving("nlp", models) as served, grpc.aio.insecure_channel(served.address) as channel:
        answer = await embed(channel)(pb.EmbedTextsRequest(texts=texts))
        ranking = rerank(channel)(pb.RerankRequest(query="good", documents=texts, model="states"))
        assert "failed on this item" in await refused(ranking, grpc.StatusCode.INTERNAL)
    assert [result.error.code for result in answer.results] == [0, 0, code_pb2.INTERNAL, 0, 0]
    good = [list(answer.results[place].embedding.values) for place in (0, 1, 3, 4)]
    assert good == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]]


async def test_own_labels(models):
    async with serving("nlp", models) as served, grpc.aio.insecure_channel(served.address) as channel:
        answer = await classify(channel)(pb.ClassifyTextRequest(texts=["good good shoe", "bad"], top_k=2))
    first, second = answer.results
    assert [category.label for category in first.categories] == ["praise", "footwear"]
    assert [category.index for category in second.categories] == [1, 0]
    assert second.categories[0].score == pytest.approx(np.exp(4) / (np.exp(4) + 2), abs=1e-5)
    assert answer.model.name == "opinion"


async def test_a_head_reads_the_embeddings_of_its_encoder(models):
    tiny_models.add_head(models)
    async with serving("nlp", models) as served, grpc.aio.insecure_channel(served.address) as channel:
        call = classify(channel)(pb.ClassifyTextRequest(texts=["shoe", "猫", "bad"], model="head", top_k=1))
        answer = await call
        headers = dict(await call.initial_metadata())
    assert [[c.label for c in result.categories] for result in answer.results] == [["label2"], [], ["label1"]]
    assert answer.results[1].error.code == code_pb2.INTERNAL
    assert answer.results[0].categories[0].score == pytest.approx(1.0, abs=1e-3)
    assert answer.model.name == "head"
    assert "headrace-engine-ms" in headers


@pytest.mark.parametrize(
    ("encoder", "width", "words"),
    [
        ("nobody", 3, "model head cannot answer now: its encoder 'nobody' cannot be used: there is no model 'nobody'"),
        ("opinion", 3, "its encoder 'opinion' cannot be used: model: model 'opinion' does not embed"),
        ("states", 5, "it reads 5 numbers, its encoder states gives 3"),
    ],
)
async def test_an_encoder_that_does_not_fit(models, encoder, width, words):
    tiny_models.add_head(models, encoder=encoder, width=width)
    async with serving("nlp", models) as served, grpc.aio.insecure_channel(served.address) as channel:
        call = classify(channel)(pb.ClassifyTextRequest(texts=["good"], model="head"))
        assert words in await refused(call, grpc.StatusCode.UNAVAILABLE)


async def test_the_callers_labels(models):
    async with serving("nlp", models) as served, grpc.aio.insecure_channel(served.address) as channel:
        request = pb.ClassifyTextRequest(texts=["shoe shoes", "good"], labels=["bad", "good", "shoe"])
        answer = await classify(channel)(request)
        only = await classify(channel)(pb.ClassifyTextRequest(texts=["good"], labels=["bad"]))
    first, second = answer.results
    assert [category.label for category in first.categories] == ["shoe", "bad", "good"]
    assert [category.index for category in first.categories] == [2, 0, 1]
    assert sum(category.score for category in second.categories) == pytest.approx(1.0, abs=1e-5)
    assert second.categories[0].label == "good"
    assert answer.model.name == "states"
    assert only.results[0].categories[0].score == pytest.approx(1.0)


async def test_documents_are_ranked_by_embeddings(models):
    documents = ["bad", "shoe", "good shoe", "", "good"]
    async with serving("nlp", models) as served, grpc.aio.insecure_channel(served.address) as channel:
        request = pb.RerankRequest(query="good good shoe", documents=documents, model="states")
        answer = await rerank(channel)(request)
        best = await rerank(channel)(
            pb.RerankRequest(query="good good shoe", documents=documents, model="states", top_n=2)
        )
    assert [result.index for result in answer.results] == [2, 4, 1, 0, 3]
    assert answer.results[0].score == pytest.approx(3 / 10**0.5, abs=1e-5)
    assert answer.results[-1].score == 0.0
    assert list(best.results) == list(answer.results[:2])


async def test_documents_are_ranked_by_a_cross_encoder(models):
    documents = ["bad", "shoe", "shoe shoe good", "good"]
    async with serving("nlp", models) as served, grpc.aio.insecure_channel(served.address) as channel:
        request = pb.RerankRequest(query="shoe shoe shoe", documents=documents, model="judge")
        answer = await rerank(channel)(request)
    assert [(result.index, result.score) for result in answer.results] == [(2, 8), (1, 4), (0, 0), (3, 0)]


@pytest.mark.parametrize(
    ("method", "request_", "code", "words"),
    [
        (embed, pb.EmbedTextsRequest(), "INVALID_ARGUMENT", "texts: is empty; send at least one"),
        (embed, pb.EmbedTextsRequest(texts=["a"] * 5), "INVALID_ARGUMENT", "texts: has 5 items; at most 4"),
        (embed, pb.EmbedTextsRequest(texts=["a"], model="state"), "NOT_FOUND", "did you mean states?"),
        (embed, pb.EmbedTextsRequest(texts=["a"], model="opinion"), "INVALID_ARGUMENT", "does not embed"),
        (embed, b"\x12\x02\xff\xfe", "INVALID_ARGUMENT", "is not a valid headrace.nlp.v1.EmbedTextsRequest message"),
        (classify, pb.ClassifyTextRequest(), "INVALID_ARGUMENT", "texts: is empty"),
        (classify, pb.ClassifyTextRequest(texts=["a"], top_k=-1), "INVALID_ARGUMENT", "top_k: is -1; must be 0"),
        (classify, pb.ClassifyTextRequest(texts=["a"], labels=["x", " "]), "INVALID_ARGUMENT", "labels[1]: is empty"),
        (
            classify,
            pb.ClassifyTextRequest(texts=["a"], labels=["x", "y", "x"]),
            "INVALID_ARGUMENT",
            "labels[2]: repeats labels[0]; name each label once",
        ),
        (classify, pb.ClassifyTextRequest(texts=["a"], labels="abcde"), "INVALID_ARGUMENT", "labels: has 5 items"),
        (
            classify,
            pb.ClassifyTextRequest(texts=["a"], labels=["x"], model="opinion"),
            "INVALID_ARGUMENT",
            "model: model 'opinion' does not embed; choose one of: states",
        ),
        (classify, pb.ClassifyTextRequest(texts=["a"], model="states"), "INVALID_ARGUMENT", "does not classify"),
        (rerank, pb.RerankRequest(documents=["a"]), "INVALID_ARGUMENT", "query: is empty"),
        (rerank, pb.RerankRequest(query=" ", documents=["a"]), "INVALID_ARGUMENT", "query: is empty"),
        (rerank, pb.RerankRequest(query="a"), "INVALID_ARGUMENT", "documents: is empty"),
        (rerank, pb.RerankRequest(query="a", documents=["b"], top_n=-3), "INVALID_ARGUMENT", "top_n: is -3; must be 0"),
        (
            rerank,
            pb.RerankRequest(query="a", documents=["b", "b" * 500, "b" * 501]),
            "INVALID_ARGUMENT",
            "documents[1]: has 500 bytes, at most 300 are accepted: send less (and 1 more)",
        ),
        (rerank, pb.RerankRequest(query="a" * 301, documents=["b"]), "INVALID_ARGUMENT", "query: has 301 bytes"),
    ],
)
async def test_what_a_wrong_call_hears(models, method, request_, code, words):
    flags = {"services.nlp.max_items": 4, "services.nlp.max_text_bytes": 300}
    async with serving("nlp", models, flags) as served, grpc.aio.insecure_channel(served.address) as channel:
        assert words in await refused(method(channel)(request_), getattr(grpc.StatusCode, code))
        assert (await embed(channel)(pb.EmbedTextsRequest(texts=["good"]))).results


@pytest.mark.parametrize("damage", ["missing", "garbage"])
async def test_a_damaged_tokenizer_makes_its_model_unavailable(models, damage):
    path = models / "states" / "tokenizer.json"
    if damage == "missing":
        path.unlink()
    else:
        path.write_text("{}")
    async with serving("nlp", models) as served, grpc.aio.insecure_channel(served.address) as channel:
        call = embed(channel)(pb.EmbedTextsRequest(texts=["good"]))
        assert "tokenizer.json" in await refused(call, grpc.StatusCode.UNAVAILABLE)
        assert [model.state for model in served.host.index()] == ["READY", "READY", "UNAVAILABLE"]
        assert (await classify(channel)(pb.ClassifyTextRequest(texts=["good"]))).results


async def test_defaults_by_role(models):
    tiny_models.add_embedder(models, "other")
    flags = {"services.nlp.defaults": {"embed": "states", "zero_shot": "other", "rerank": "judge"}}
    async with serving("nlp", models, flags) as served, grpc.aio.insecure_channel(served.address) as channel:
        embedded = await embed(channel)(pb.EmbedTextsRequest(texts=["good"]))
        labelled = await classify(channel)(pb.ClassifyTextRequest(texts=["good"], labels=["bad"]))
        ranked = await rerank(channel)(pb.RerankRequest(query="good", documents=["bad"]))
    assert [answer.model.name for answer in (embedded, labelled, ranked)] == ["states", "other", "judge"]


async def test_many_callers_get_their_own_answers_in_order(models):
    """Texts of all lengths from 40 callers at once: nothing is lost, mixed up or answered twice."""
    draw = random.Random(3)
    words = ("good", "bad", "shoe", "shoes")
    calls = [
        [" ".join(draw.choices(words, k=draw.randint(0, 7))) for _ in range(draw.randint(1, 30))] for _ in range(40)
    ]
    async with serving("nlp", models) as served, grpc.aio.insecure_channel(served.address) as channel:
        answers = await asyncio.gather(*(embed(channel)(pb.EmbedTextsRequest(texts=texts)) for texts in calls))
        batches = served.host.resolve("states", "embed").batcher.stats().batches
    rows = dict(zip(words, ([4, 0, 0], [0, 4, 0], [0, 0, 4], [0, 0, 5]), strict=True))
    for texts, answer in zip(calls, answers, strict=True):
        sums = np.array([np.sum([rows[word] for word in text.split()] or [[0, 0, 0]], 0) for text in texts], float)
        expected = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)
        np.testing.assert_allclose(vectors(answer), expected, atol=1e-5)
        assert [result.token_count for result in answer.results] == [
            2 + sum(1 + (word == "shoes") for word in text.split()) if text else 2 for text in texts
        ]
    assert batches < sum(map(len, calls)) / 2


async def test_a_cancelled_call_drops_its_texts(models):
    async with serving("nlp", models, {"services.nlp.max_items": 20_000}) as served:
        batcher = served.host.resolve("states", "embed").batcher
        async with grpc.aio.insecure_channel(served.address) as channel:
            call = embed(channel)(pb.EmbedTextsRequest(texts=["good bad shoe"] * 20_000))
            async with asyncio.timeout(10):
                while batcher.stats().rows == 0:  # The batcher tells of batches by counting.
                    await asyncio.sleep(0.001)
            call.cancel()
            await served.host.drain()
            done = batcher.stats().rows
            assert done < 20_000
            await embed(channel)(pb.EmbedTextsRequest(texts=["good"]))
            assert batcher.stats().rows <= done + 100
