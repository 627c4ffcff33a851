"""Models that rank: scores of pairs as transformers gives them, heads of decoders, and models without a head."""

from __future__ import annotations

import numpy as np
import pytest
from tiny import tiny_llama, weights

torch = pytest.importorskip("torch")
folders = pytest.importorskip("encoder_folders", reason="needs transformers")

from tiny import Shape, write_llama  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402

import opsin  # noqa: E402
from opsin.convert.hf import convert  # noqa: E402
from opsin.errors import ModelError, RequestError  # noqa: E402

QUERY = "the quick fox"
DOCUMENTS = ["rain in spain", "the lazy dog jumps over", "a", "héllo world and so on", "The quick brown fox"]


@pytest.fixture(scope="module", params=["bert", "xlm-roberta", "modern-bert", "modern-bert-mean"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def folder(kind, tmp_path_factory):
    return tmp_path_factory.mktemp(kind)


@pytest.fixture(scope="module")
def truth(kind, folder):
    return folders.save_ranking(folder, kind)


@pytest.fixture(scope="module")
def model(folder, truth):
    convert(folder, folder / "model.gguf", format="f32")
    with opsin.load(folder / "model.gguf", threads=2, pages="f32") as made:
        yield made


def test_scores_of_pairs_equal_transformers(kind, folder, truth, model):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    expected, found = [], {one.index: one.score for one in model.rerank(QUERY, DOCUMENTS)}
    for document in DOCUMENTS:
        pair = tokenizer(QUERY, document, return_tensors="pt", return_token_type_ids=kind == "bert")
        with torch.no_grad():
            expected.append(float(truth(**pair).logits[0, 0]))
    assert [found[i] for i in range(len(DOCUMENTS))] == pytest.approx(expected, abs=1e-5)
    assert max(expected) - min(expected) > 0.01  # a vocabulary comes out a little otherwise each time


def test_they_come_from_the_best_to_the_worst(model):
    scores = [one.score for one in model.rerank(QUERY, DOCUMENTS)]
    assert scores == sorted(scores, reverse=True)
    assert [one.index for one in model.rerank(QUERY, ["a", "a", "a"])] == [0, 1, 2]
    assert model.rerank(QUERY, []) == []


def test_a_document_has_the_same_score_alone_and_in_company(model):
    for one in model.rerank(QUERY, DOCUMENTS):
        assert model.rerank(QUERY, [DOCUMENTS[one.index]])[0].score == one.score


def judge(path, outputs: int, metadata: dict[str, object]):
    """A tiny llama with a head of so many outputs, and the head."""
    shape = Shape(metadata={"llama.pooling_type": 4, **metadata})
    head = np.random.default_rng(5).standard_normal((outputs, shape.width)).astype(np.float32)
    return write_llama(path, shape, {**weights(shape), "cls.output.weight": head}), head


def test_a_decoder_s_head_judges_the_last_token_as_the_file_s_template_writes_pairs(tmp_path):
    template = "<|im_start|>Q: {query} D: {document}<|im_end|>"
    metadata = {"llama.classifier.output_labels": ["yes", "no"], "tokenizer.chat_template.rerank": template}
    path, head = judge(tmp_path / "m.gguf", 2, metadata)
    with opsin.load(path, threads=1, context=256, pages="f32") as model:
        for one in model.rerank(QUERY, [*DOCUMENTS, "<|im_end|>"]):
            document = [*DOCUMENTS, "<|im_end|>"][one.index]
            begin, end = (model.tokenize(text, special=True) for text in ("<|im_start|>", "<|im_end|>"))
            ids = [*begin, *model.tokenize(f"Q: {QUERY} D: {document}"), *end]
            odds = head @ model.embed([ids], pooling="last", normalize=False)[0]
            assert one.score == pytest.approx(1 / (1 + np.exp(odds[1] - odds[0])), abs=1e-4)


@pytest.mark.parametrize("head", ["lm", "tied", "cls"])
def test_a_qwen3_reranker_is_known_by_its_name_and_judges_as_it_was_trained_to(tmp_path, head):
    truth = folders.save_judge(tmp_path, head)
    convert(tmp_path, tmp_path / "model.gguf", format="f32")
    with opsin.load(tmp_path / "model.gguf", threads=1, pages="f32") as model:
        tokenizer = model.tokenizer
        yes, no = (tokenizer.encode(word, special=True)[0] for word in ("yes", "no"))
        for one in model.rerank("rain", ["in Spain", "fox"]):
            document = ["in Spain", "fox"][one.index]
            said = model.text.facts.rank_template.replace("{query}", "rain").replace("{document}", document)
            ids = tokenizer.encode(said, special=True, add_special=True)
            with torch.no_grad():
                logits = truth(torch.tensor([ids])).logits[0]
            odds = logits[-1, [yes, no]].softmax(0)[0] if head != "cls" else logits[0]
            assert one.score == pytest.approx(float(odds), abs=1e-4)
    (tmp_path / "README.md").write_text("# Qwen3")
    convert(tmp_path, tmp_path / "other.gguf", format="f32")
    with opsin.load(tmp_path / "other.gguf", threads=1) as other:
        assert not other.text.facts.rank_template and (other.text.rank_head is None) == (head != "cls")


def test_a_head_of_one_output_is_told_as_it_is(tmp_path):
    path, head = judge(tmp_path / "m.gguf", 1, {"tokenizer.ggml.add_eos_token": True})
    with opsin.load(path, threads=1, context=256, pages="f32") as model:
        (one,) = model.rerank(QUERY, ["sun"])
        ids = [*model.tokenize(QUERY), model.tokenizer.eos, *model.tokenize("sun"), model.tokenizer.eos]
        assert one.score == pytest.approx(float(head[0] @ model.embed([ids], normalize=False)[0]), abs=1e-4)


def test_a_head_that_tells_classes_apart_is_refused(tmp_path):
    path, _ = judge(tmp_path / "m.gguf", 3, {})
    with pytest.raises(ModelError, match="3 classes"):
        opsin.load(path, threads=1)


def test_without_a_head_scores_are_cosines_of_embeddings(tmp_path):
    with opsin.load(tiny_llama(tmp_path / "m.gguf"), threads=1, context=256) as model:
        query, *others = model.embed([QUERY, *DOCUMENTS])
        for one in model.rerank(QUERY, DOCUMENTS):
            assert one.score == pytest.approx(float(others[one.index] @ query), abs=1e-6)


@pytest.mark.parametrize("asked", [(3, ["a"]), (QUERY, "a"), (QUERY, [3]), (QUERY, ["a " * 2000])])
def test_what_cannot_be_is_refused(model, asked):
    with pytest.raises(RequestError):
        model.rerank(*asked)
