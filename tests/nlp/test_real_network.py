"""all-MiniLM-L6-v2 and the sentiment head with their real weights."""

import asyncio
import random
import time

import grpc
import numpy as np
import pytest
import tritonclient.grpc.aio as triton
from google.rpc import code_pb2

import headrace
from headrace.nlp.v1 import nlp_pb2 as pb
from tests.nlp.test_servicer import classify, embed, refused, rerank, vectors
from tests.serving import serving

DEFAULTS = {
    "services.nlp.defaults": {
        "embed": "all_minilm_l6_v2",
        "rerank": "all_minilm_l6_v2",
        "zero_shot": "all_minilm_l6_v2",
        "classify": "clothing_sentiment",
    }
}
PARAPHRASES = [
    ("A man is eating food.", "A man eats something."),
    ("How do I reset my password?", "I forgot my login code, what now?"),
    ("The company's profits rose sharply.", "Earnings of the firm went up a lot."),
    ("It is raining heavily outside.", "There is a downpour."),
]
TOPICS = {
    "sports": ["The striker scored twice in the second half.", "She won the marathon in record time."],
    "politics": ["Parliament passed the new tax bill on Tuesday.", "Voters go to the polls on Sunday."],
    "cooking": ["Simmer the onions in butter until golden.", "This soup needs more garlic."],
    "technology": ["A bug in the operating system deleted users' files.", "The laptop's battery lasts twenty hours."],
    "science": ["The telescope found water vapour on a distant planet.", "Biologists sequenced the octopus' genome."],
}
PRAISE = [
    "I love this dress, it fits perfectly and I get compliments every time.",
    "Beautiful fabric, true to size, I bought it in two colors.",
    "So comfortable and flattering, my new favorite jeans.",
    "Gorgeous sweater, soft and warm. Highly recommend!",
    "The color is stunning and the quality is great.",
]
BLAME = [
    "Terrible quality, it fell apart after one wash. Returned it.",
    "Very disappointed: the fabric is cheap and scratchy.",
    "Huge and shapeless, it looked like a sack on me. Going back.",
    "Awful fit, poorly made, not worth the money.",
    "The seams ripped the first time I wore it. Do not buy.",
]


def sentences(count, most_words=60):
    """Different texts of all lengths, most of them short."""
    draw = random.Random(5)
    words = [*"abcdefghij", "river", "valley", "engine", "turbine", "water", "quickly", "silent"]
    return [
        f"{index} " + " ".join(draw.choices(words, k=min(most_words, int(draw.lognormvariate(2.2, 0.8)) + 1)))
        for index in range(count)
    ]


async def test_paraphrases_are_nearer_than_other_texts(zoo_texts):
    texts = [text for pair in PARAPHRASES for text in pair]
    async with serving("nlp", zoo_texts, DEFAULTS) as served, grpc.aio.insecure_channel(served.address) as channel:
        found = vectors(await embed(channel)(pb.EmbedTextsRequest(texts=texts)))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)
    likeness = found @ found.T
    for place in range(0, len(texts), 2):
        others = np.delete(likeness[place], [place, place + 1])
        assert likeness[place, place + 1] > others.max() + 0.2, texts[place]


async def test_sentiment_of_reviews(zoo_texts):
    async with serving("nlp", zoo_texts, DEFAULTS) as served, grpc.aio.insecure_channel(served.address) as channel:
        answer = await classify(channel)(pb.ClassifyTextRequest(texts=[*PRAISE, *BLAME]))
    labels = [result.categories[0].label for result in answer.results]
    assert labels == ["positive"] * len(PRAISE) + ["negative"] * len(BLAME)
    assert answer.model.name == "clothing_sentiment"
    assert all(sum(c.score for c in result.categories) == pytest.approx(1.0, abs=1e-5) for result in answer.results)


async def test_labels_never_seen_in_training(zoo_texts):
    texts = [(text, topic) for topic, found in TOPICS.items() for text in found]
    request = pb.ClassifyTextRequest(texts=[text for text, _ in texts], labels=list(TOPICS), top_k=1)
    async with serving("nlp", zoo_texts, DEFAULTS) as served, grpc.aio.insecure_channel(served.address) as channel:
        answer = await classify(channel)(request)
    right = [result.categories[0].label == topic for result, (_, topic) in zip(answer.results, texts, strict=True)]
    assert sum(right) >= 9, list(zip(texts, answer.results, strict=True))


async def test_the_document_that_answers_comes_first(zoo_texts):
    documents = ["Bananas are yellow.", "猫", "", "Click 'forgot password' to set a new one.", "It is nice today."]
    async with serving("nlp", zoo_texts, DEFAULTS) as served, grpc.aio.insecure_channel(served.address) as channel:
        answer = await rerank(channel)(pb.RerankRequest(query="how do I reset my password?", documents=documents))
    assert answer.results[0].index == 3
    assert sorted(result.index for result in answer.results) == list(range(5))
    scores = [result.score for result in answer.results]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0.5 > scores[1]


async def test_a_mixed_message_equals_its_texts_alone(zoo_texts):
    """300 texts, grouped by length behind one call: order kept, answers those of lone texts, hardly any padding."""
    texts = sentences(300)
    async with serving("nlp", zoo_texts, DEFAULTS) as served, grpc.aio.insecure_channel(served.address) as channel:
        batcher = served.host.resolve("all_minilm_l6_v2", "embed").batcher
        together = vectors(await embed(channel)(pb.EmbedTextsRequest(texts=texts)))
        runs = batcher.stats().batches
        chosen = range(0, 300, 23)
        alone = [vectors(await embed(channel)(pb.EmbedTextsRequest(texts=[texts[place]])))[0] for place in chosen]
    np.testing.assert_allclose(together[list(chosen)], alone, atol=1e-5)
    assert runs < 40


async def test_texts_of_several_callers_share_runs(zoo_texts):
    async with serving("nlp", zoo_texts, DEFAULTS) as served, grpc.aio.insecure_channel(served.address) as channel:
        batcher = served.host.resolve("all_minilm_l6_v2", "embed").batcher
        calls = [embed(channel)(pb.EmbedTextsRequest(texts=[f"hello number {index}"])) for index in range(48)]
        await asyncio.gather(*calls)
        sizes = [int(dict(await call.initial_metadata())["headrace-batch-rows"]) for call in calls]
        assert batcher.stats().batches < 48
    assert max(sizes) > 1


async def test_odd_texts(zoo_texts):
    odd = ["", " ", "\x00", "a\x00b", "😀🎉", "猫在垫子上睡觉。", "\u202ertl", "e\u0301" * 50, "x" * 2000, "\n\t"]
    async with serving("nlp", zoo_texts, DEFAULTS) as served, grpc.aio.insecure_channel(served.address) as channel:
        for labels in ((), ("animals", "食物", "😀")):
            answer = await classify(channel)(pb.ClassifyTextRequest(texts=odd, labels=labels))
            assert not any(result.error.code for result in answer.results)
        answer = await embed(channel)(pb.EmbedTextsRequest(texts=odd))
    assert [result.token_count for result in answer.results][:3] == [2, 2, 2]
    np.testing.assert_allclose(np.linalg.norm(vectors(answer), axis=1), 1.0, atol=1e-5)


async def test_a_megabyte_of_text_leaves_the_loop_to_others(zoo_texts):
    """The long text is read in a thread; the loop's longest pause is far below what reading takes."""
    megabyte = " " * ((1 << 20) - 5) + " word"
    async with serving("nlp", zoo_texts, DEFAULTS) as served, grpc.aio.insecure_channel(served.address) as channel:
        await embed(channel)(pb.EmbedTextsRequest(texts=["warm"]))
        call = embed(channel)(pb.EmbedTextsRequest(texts=[megabyte] * 4 + ["short"]))
        pauses, last = [], time.perf_counter()
        started = last
        while not call.done():
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            pauses.append(now - last)
            last = now
        took = time.perf_counter() - started
        answer = await call
        over = await embed(channel)(pb.EmbedTextsRequest(texts=[megabyte + "!", "short"]))
    assert [result.token_count for result in answer.results] == [3, 3, 3, 3, 3]
    assert max(pauses) < took / 2
    assert over.results[0].error.code == code_pb2.INVALID_ARGUMENT
    assert "texts[0]: has 1048577 bytes, at most 1048576 are accepted" in over.results[0].error.message
    assert over.results[1].token_count == 3


async def test_ten_thousand_texts_are_refused_in_words(zoo_texts):
    async with serving("nlp", zoo_texts, DEFAULTS) as served, grpc.aio.insecure_channel(served.address) as channel:
        call = embed(channel)(pb.EmbedTextsRequest(texts=["a"] * 10_000))
        words = await refused(call, grpc.StatusCode.INVALID_ARGUMENT)
    assert words == "texts: has 10000 items; at most 1024 are accepted in one call: send several calls"


async def test_a_deadline_ends_a_long_message(zoo_texts):
    async with serving("nlp", zoo_texts, DEFAULTS) as served, grpc.aio.insecure_channel(served.address) as channel:
        await embed(channel)(pb.EmbedTextsRequest(texts=["warm"]))
        started = time.monotonic()
        request = pb.EmbedTextsRequest(texts=["a long text of many words " * 50] * 1000)
        await refused(embed(channel)(request, timeout=0.5), grpc.StatusCode.DEADLINE_EXCEEDED)
        assert time.monotonic() - started < 3.0
        await asyncio.wait_for(served.host.drain(), 5)


async def test_tritonclient_reaches_both_models(zoo_texts):
    async with serving("nlp", zoo_texts, DEFAULTS) as served:
        client = triton.InferenceServerClient(served.address)
        try:
            ids, mask = (
                triton.InferInput("input_ids", [2, 4], "INT64"),
                triton.InferInput("attention_mask", [2, 4], "INT64"),
            )
            ids.set_data_from_numpy(np.array([[101, 7592, 2088, 102], [101, 7592, 102, 0]]))
            mask.set_data_from_numpy(np.array([[1, 1, 1, 1], [1, 1, 1, 0]]))
            embedded = (await client.infer("all_minilm_l6_v2", [ids, mask])).as_numpy("embedding")
            vector = triton.InferInput("embedding", [2, 384], "FP32")
            vector.set_data_from_numpy(embedded)
            logits = (await client.infer("clothing_sentiment", [vector])).as_numpy("logits")
        finally:
            await client.close()
        async with grpc.aio.insecure_channel(served.address) as channel:
            typed = vectors(await embed(channel)(pb.EmbedTextsRequest(texts=["hello world", "Hello"])))
    np.testing.assert_allclose(embedded, typed, atol=1e-5)
    assert logits.shape == (2, 2)
    np.testing.assert_allclose(logits.sum(1), 0.0, atol=1e-5)


async def test_the_client(zoo_texts):
    async with serving("nlp", zoo_texts, DEFAULTS) as served:
        async with headrace.AsyncClient(served.address) as client:
            embedded = await client.nlp.embed(["one", "two words"])
            labelled = await client.nlp.classify("I adore these shoes.")
            chosen = await client.nlp.classify("The goalkeeper saved a penalty.", labels=["football", "opera"], top_k=1)
            ranked = await client.nlp.rerank("fruit", ["a screwdriver", "a ripe pear"], top_n=1)
            long = await client.nlp.embed("word " * 300, no_truncate=True)
        blocking = await asyncio.to_thread(_blocking, served.address)
    assert [result.token_count for result in embedded] == [3, 4]
    assert len(embedded[0].embedding) == 384
    assert str(embedded.model) == "all_minilm_l6_v2@1"
    assert embedded.receipt is not None
    assert embedded.receipt.engine_ms > 0
    assert labelled[0].categories[0].label == "positive"
    assert [category.label for category in chosen[0].categories] == ["football"]
    assert [result.index for result in ranked] == [1]
    assert isinstance(long[0].error, headrace.InvalidArgument)
    assert blocking == ([3], "positive", [1, 0])


def _blocking(address):
    with headrace.Client(address) as client:
        counts = [result.token_count for result in client.nlp.embed("one")]
        label = client.nlp.classify(["I adore these shoes."])[0].categories[0].label
        return counts, label, [result.index for result in client.nlp.rerank("fruit", ["a screwdriver", "a ripe pear"])]
