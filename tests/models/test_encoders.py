"""Encoders of text: folders of transformers, converted, give the embeddings that transformers gives in float32."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
folders = pytest.importorskip("encoder_folders", reason="needs transformers")

from by_hand import distance  # noqa: E402
from encoder_folders import CONTEXT, ENCODERS, TEXTS, WIDTH  # noqa: E402
from tiny import Shape, weights, write_llama  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402

import opsin  # noqa: E402
from opsin.convert.hf import convert  # noqa: E402
from opsin.errors import ContextError, FileError, ModelError, RequestError  # noqa: E402

POOLED = {"mean": lambda s: s.mean(axis=0), "cls": lambda s: s[0], "last": lambda s: s[-1]}


@pytest.fixture(scope="module", params=ENCODERS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def folder(kind, tmp_path_factory):
    return tmp_path_factory.mktemp(kind)


@pytest.fixture(scope="module")
def truth(kind, folder):
    return folders.save(folder, kind)


@pytest.fixture(scope="module")
def model(folder, truth):
    convert(folder, folder / "model.gguf", format="f32")
    with opsin.load(folder / "model.gguf", threads=2, pages="f32") as made:
        yield made


@pytest.fixture(scope="module")
def expected(folder, truth):
    """States [tokens, width] of each text."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        return [truth(torch.tensor([tokenizer(text)["input_ids"]])).last_hidden_state[0].numpy() for text in TEXTS]


def cosine(one, other):
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def test_a_text_has_the_tokens_of_transformers(folder, truth, model):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        assert model.tokenizer.encode(text, add_special=True) == tokenizer(text)["input_ids"]


def test_embeddings_equal_transformers(model, expected):
    for ours, theirs in zip(model.embed(TEXTS, pooling="none"), expected, strict=True):
        assert distance(ours, theirs) <= 1e-4


def test_embeddings_are_pooled_as_the_folder_says(kind, model, expected):
    assert model.pooling == ENCODERS[kind].pooling
    for ours, theirs in zip(model.embed(TEXTS), expected, strict=True):
        assert cosine(ours, POOLED[model.pooling](theirs)) >= 0.99999


def test_halves_and_a_folder_that_is_not_converted_are_near(folder, expected):
    with opsin.load(folder, threads=2) as open_folder:
        for ours, theirs in zip(open_folder.embed(TEXTS), expected, strict=True):
            assert cosine(ours, POOLED[open_folder.pooling](theirs)) >= 0.9999


def retrieval_set():
    """Queries, documents and which of these are of a query's topic: a set as those of MTEB, made by chance."""
    random = np.random.default_rng(6)
    words = sorted({word for text in TEXTS for word in text.split()})
    topics = [list(random.choice(words, 4, replace=False)) for _ in range(4)]
    of = np.repeat(np.arange(4), 6)
    documents = [" ".join(random.permutation([*topics[i], *random.choice(words, 5)])) for i in of]
    return [" ".join(topic[:3]) for topic in topics], documents, of


def gain(order, relevant):
    """nDCG of the first ten."""
    shares = 1 / np.log2(np.arange(2, 12))
    return float((relevant[order[:10]] * shares).sum() / shares[: relevant.sum()].sum())


def test_documents_come_in_the_order_of_transformers(folder, truth, model):
    queries, documents, topics = retrieval_set()
    tokenizer, texts = AutoTokenizer.from_pretrained(folder), [*queries, *documents]
    with torch.no_grad():
        states = [truth(torch.tensor([tokenizer(text)["input_ids"]])).last_hidden_state[0].numpy() for text in texts]
    pooled = np.array([POOLED[model.pooling](one) for one in states], np.float64)
    pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
    wanted = pooled[: len(queries)] @ pooled[len(queries) :].T
    for number, query in enumerate(queries):
        order = [one.index for one in model.rerank(query, documents)]
        told, best = wanted[number, order], np.argsort(-wanted[number], kind="stable")
        assert (np.diff(told) <= 1e-5).all()
        assert gain(order, topics == number) == pytest.approx(gain(best, topics == number), abs=1e-6)


def test_a_text_has_the_same_bits_alone_and_in_company(model):
    together = model.embed([*TEXTS, *TEXTS])
    for number, text in enumerate(TEXTS):
        assert np.array_equal(model.embed(text), together[number])
        assert np.array_equal(together[number], together[number + len(TEXTS)])


def test_the_longest_text_is_computed_in_one_step(model, truth):
    ids = np.random.default_rng(0).integers(5, 200, CONTEXT).tolist()
    with torch.no_grad():
        theirs = truth(torch.tensor([ids])).last_hidden_state[0].numpy()
    (ours,) = model.embed([ids], pooling="none")
    assert distance(ours, theirs) <= 1e-4
    with pytest.raises(ContextError, match="257 tokens"):
        model.embed([[5] * (CONTEXT + 1)])


def test_a_trace_shows_what_is_inside(model, expected):
    ids = model.tokenizer.encode(TEXTS[0], add_special=True)
    traced = model.trace(ids)
    assert traced["embed"].shape == (len(ids), WIDTH)
    assert traced["blk.2.attn.weights"].shape == (len(ids), 4, len(ids))
    assert distance(traced["norm"], expected[0]) <= 1e-4


def test_it_writes_nothing_and_says_so(model):
    assert not model.writes
    for ask in (lambda: model.complete("a"), lambda: model.chat("a"), lambda: model.logits([5, 6])):
        with pytest.raises(RequestError, match="writes nothing"):
            ask()
    with pytest.raises(RequestError, match="writes nothing"):
        model.prompt_logprobs([5, 6])


def test_matrices_behind_a_pooled_embedding_are_applied_to_it_alone(tmp_path):
    shape, random = Shape(metadata={"llama.pooling_type": 1}), np.random.default_rng(3)
    dense = [random.standard_normal(size).astype(np.float32) for size in ((96, shape.width), (shape.width, 96))]
    write_llama(tmp_path / "plain.gguf", shape, weights(shape))
    tensors = {**weights(shape), "dense_2.weight": dense[0], "dense_3.weight": dense[1]}
    write_llama(tmp_path / "dense.gguf", shape, tensors)
    with (
        opsin.load(tmp_path / "plain.gguf", threads=1) as plain,
        opsin.load(tmp_path / "dense.gguf", threads=1) as made,
    ):
        truth = dense[1] @ (dense[0] @ plain.embed("the rain", normalize=False))
        np.testing.assert_allclose(made.embed("the rain", normalize=False), truth, rtol=1e-3, atol=1e-3)
        (one,), (other,) = (m.embed(["the rain"], pooling="none") for m in (plain, made))
        assert np.array_equal(one, other)
    write_llama(tmp_path / "wrong.gguf", shape, {**weights(shape), "dense_2.weight": dense[1]})
    with pytest.raises(ModelError, match="of 96 values"):
        opsin.load(tmp_path / "wrong.gguf", threads=1)


def test_a_folder_s_matrices_behind_the_pooling_have_their_bias_activation_and_width(tmp_path):
    folders.save(tmp_path, "bert")
    random, width = np.random.default_rng(4), 48
    matrix, bias = (random.standard_normal(size).astype(np.float32) for size in ((width, WIDTH), (width,)))
    other = random.standard_normal((width, width)).astype(np.float32)
    with opsin.load(tmp_path, threads=1, pages="f32") as plain:
        pooled = plain.embed("the rain", normalize=False)
    folders.add_dense(tmp_path, "2_Dense", {"weight": matrix, "bias": bias}, "torch.nn.modules.activation.Tanh")
    folders.add_dense(tmp_path, "3_Dense", {"weight": other}, "torch.nn.modules.linear.Identity")
    with opsin.load(tmp_path, threads=1, pages="f32") as model:
        assert model.width == width
        truth = other @ np.tanh(matrix @ pooled + bias)
        np.testing.assert_allclose(model.embed("the rain", normalize=False), truth, rtol=1e-3, atol=1e-3)
        assert model.embed("the rain", dimensions=width).shape == (width,)
        assert model.embed(["the rain"], pooling="none")[0].shape[1] == WIDTH
        with pytest.raises(RequestError, match="dimensions"):
            model.embed("the rain", dimensions=width + 1)
    folders.add_dense(tmp_path, "2_Dense", {"weight": matrix}, "torch.nn.modules.activation.GELU")
    with pytest.raises(FileError, match="GELU"):
        opsin.load(tmp_path, threads=1)
