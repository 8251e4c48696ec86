"""Residual k-means against the plain loop that it was; RQ-VAE: gradients by hand, error against k-means, revival."""

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from recast_train.semantic_id import RqVaeConfig, SemanticIdError, residual_kmeans, tokenize_items
from recast_train.semantic_id.quantised import relative_error
from recast_train.semantic_id.rqvae import RqVae, straight_through, train_rqvae
from recast_train.semantic_id.sid_quality import reconstruction, usage

SMALL = RqVaeConfig(hidden=(64,), latent=8, epochs=100, batch=64, learning_rate=1e-2)


def clustered(seed: int, items: int = 240, dim: int = 8, noise: float = 0.2) -> np.ndarray:
    """Eight centres, four offsets shared by all of them, and noise."""
    rng = np.random.default_rng(seed)
    coarse, fine = 4.0 * rng.standard_normal((8, dim)), rng.standard_normal((4, dim))
    return coarse[rng.integers(0, 8, items)] + fine[rng.integers(0, 4, items)] + noise * rng.standard_normal((items, dim))


def plain_codes(points: np.ndarray, sizes: tuple[int, ...], seed: int) -> np.ndarray:
    """The first recipe's codes: k-means of the residuals, an index by distance at the end, written as one loop."""
    left, codes = points.astype(np.float64), []
    for level, size in enumerate(sizes, start=1):
        state = int(np.random.SeedSequence([seed, level]).generate_state(1)[0])
        code = KMeans(size, n_init=10, random_state=state).fit_predict(left).astype(np.int64)
        total = np.zeros((size, left.shape[1]))
        np.add.at(total, code, left)
        left = left - (total / np.maximum(np.bincount(code, minlength=size), 1)[:, None])[code]
        codes.append(code)
    rows = [tuple(row) for row in np.stack(codes, axis=1).tolist()]
    index, counts = np.empty(len(rows), dtype=np.int64), dict.fromkeys(rows, 0)
    for item in np.lexsort((np.arange(len(rows)), np.linalg.norm(left, axis=1))):
        index[item] = counts[rows[item]]
        counts[rows[item]] += 1
    return np.column_stack([*codes, index])


@pytest.mark.parametrize(("sizes", "seed"), [((8, 4), 0), ((6, 3, 2), 1), ((32, 16), 0)])
def test_codes_are_those_of_the_plain_loop(sizes: tuple[int, ...], seed: int) -> None:
    points = clustered(seed)
    assert np.array_equal(tokenize_items(points, sizes, seed).codes_IL, plain_codes(points, sizes, seed))


def test_each_level_rebuilds_more_and_the_error_is_that_of_the_sum() -> None:
    points = clustered(2)
    quantised = residual_kmeans(points, (8, 4, 4), 0)
    errors = reconstruction(quantised, points)
    assert errors == sorted(errors, reverse=True)
    rebuilt = sum(book[quantised.codes_IL[:, level]] for level, book in enumerate(quantised.codebooks))
    spread = ((points - points.mean(axis=0)) ** 2).sum()
    assert errors[-1] == pytest.approx(((points - rebuilt) ** 2).sum() / spread)
    assert errors[0] < 0.2


@pytest.mark.parametrize("method", ["residual_kmeans", "rqvae"])
def test_equal_embeddings_have_no_relative_error(method: str) -> None:
    table = tokenize_items(np.full((5, 3), 0.1), (1,), 0, method=method, collisions="level")
    assert table.report["reconstruction_error"] == [None]
    assert sorted(table.codes_IL[:, 1].tolist()) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("method", ["residual_kmeans", "rqvae"])
def test_one_item_is_a_catalog(method: str) -> None:
    for collisions in ("level", "nearest"):
        table = tokenize_items(np.ones((1, 3)), (1, 1), 0, method=method, collisions=collisions)
        assert not table.codes_IL.any()


@pytest.mark.parametrize("method", ["residual_kmeans", "rqvae"])
@pytest.mark.parametrize(
    ("points", "sizes", "said"),
    [
        (np.array([[0.0, np.nan], [1.0, 2.0]]), (2,), "nan at item 0, dimension 1"),
        (np.array([[0.0, 1e200], [1.0, 2.0]]), (2,), r"1e\+200 at item 0, dimension 1; make them finite, within 1e\+100"),
        (np.empty((0, 4)), (2,), r"shape \(0, 4\)"),
        (np.array([["a"]]), (1,), "dtype <U1 is not real"),
        (np.eye(3), (4,), "level 1 has 4 codes for 3 different vectors"),
        (np.ones((9, 2)), (2,), "level 1 has 2 codes for 1 different vectors"),
    ],
)
def test_what_no_method_can_quantise(method: str, points: np.ndarray, sizes: tuple[int, ...], said: str) -> None:
    with pytest.raises(SemanticIdError, match=said):
        tokenize_items(points, sizes, 0, method=method)


# RQ-VAE


def test_the_straight_through_gradient_is_the_identity() -> None:
    latent, quantised = torch.randn(5, 3, requires_grad=True), torch.randn(5, 3, requires_grad=True)
    out, arriving = straight_through(latent, quantised), torch.randn(5, 3)
    assert torch.allclose(out, quantised)
    out.backward(arriving)
    assert torch.equal(latent.grad, arriving)
    assert quantised.grad is None


@pytest.mark.parametrize("beta", [0.0, 0.25])
def test_codebooks_and_encoder_learn_from_their_own_terms(beta: float) -> None:
    torch.manual_seed(0)
    model = RqVae(4, (3, 2), RqVaeConfig(hidden=(), latent=2))
    with torch.no_grad():
        for book in model.books:
            book.normal_()
    points = torch.randn(6, 4)
    loss, codes, left = model.loss(points, beta)
    loss.backward()
    for level, book in enumerate(model.books):  # of the mean over items of |residual - code|^2
        pull = torch.zeros_like(book)
        for item, code in enumerate(codes[:, level].tolist()):
            pull[code] += 2 * (book[code] - left[level][item]).detach() / len(points)
        assert torch.allclose(book.grad, pull, atol=1e-6)
    latent = model.encoder(points).detach().requires_grad_()
    total = torch.stack([model.books[level][codes[:, level]].detach() for level in (0, 1)])
    (points - model.decoder(straight_through(latent, total.sum(0)))).square().sum().div(6).backward()
    commitment = sum(2 * beta * (latent - total[: level + 1].sum(0)).detach() / 6 for level in (0, 1))
    wanted = (latent.grad + commitment).T @ points
    assert torch.allclose(model.encoder[0].weight.grad, wanted, atol=1e-5)


@pytest.mark.parametrize("seed", [0, 1])
def test_rqvae_comes_close_to_kmeans_and_far_below_random_codes(seed: int) -> None:
    points, sizes = clustered(seed, noise=0.8), (8, 4)
    trained = train_rqvae(points, sizes, seed, SMALL)
    error, best = reconstruction(trained, points)[-1], reconstruction(residual_kmeans(points, sizes, seed), points)[-1]
    random = np.random.default_rng(seed).integers(0, sizes, (len(points), 2))
    rebuilt = trained.decode(trained.codebooks[0][random[:, 0]] + trained.codebooks[1][random[:, 1]])
    assert error < 2 * best
    assert error < 0.1 * relative_error(points, rebuilt)


def test_the_unit_of_the_embeddings_does_not_matter() -> None:
    points, few = clustered(3), RqVaeConfig(hidden=(16,), latent=8, epochs=5, batch=64)
    small, large = (train_rqvae(scale * points, (8, 4), 0, few) for scale in (1.0, 2.0**20))
    assert np.array_equal(small.codes_IL, large.codes_IL)
    assert np.allclose(small.decode(small.vectors_ID) * 2.0**20, large.decode(large.vectors_ID))


def test_the_same_seed_gives_the_same_table_and_the_global_generator_is_left_alone() -> None:
    points, few = clustered(4), RqVaeConfig(hidden=(16,), latent=8, epochs=5, batch=64, revive_every=3)
    torch.manual_seed(7)
    state = torch.get_rng_state()
    one, same, other = (tokenize_items(points, (8, 4), seed, method="rqvae", rqvae=few) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert one.hash == same.hash
    assert not np.array_equal(one.codes_IL, other.codes_IL)


def test_revival_brings_dead_codes_into_use() -> None:
    rng = np.random.default_rng(0)
    points = np.concatenate([np.zeros((200, 4)), 3.0 * rng.standard_normal((56, 4))]) + 0.01 * rng.standard_normal((256, 4))
    used = {}
    for revive_every in (0, 10):  # a first batch of mostly equal items starts many codes in one place
        config = RqVaeConfig(hidden=(16,), latent=4, epochs=60, batch=32, revive_every=revive_every, learning_rate=1e-2)
        quantised = train_rqvae(points, (32,), 0, config)
        used[revive_every] = usage(quantised.codes_IL, (32,))["utilisation"][0]
    assert used[10] > used[0] + 0.1


def test_a_loss_that_is_not_finite_names_the_epoch() -> None:
    with pytest.raises(SemanticIdError, match=r"RQ-VAE: loss is (inf|nan) in epoch \d+; lower RqVaeConfig.learning_rate"):
        train_rqvae(clustered(5), (8, 4), 0, RqVaeConfig(hidden=(16,), epochs=20, batch=64, learning_rate=1e18))


def test_a_batch_must_fill_the_codebooks() -> None:
    with pytest.raises(SemanticIdError, match=r"RqVaeConfig.batch: 4 is less than 8, the largest of sizes; raise it"):
        train_rqvae(clustered(5), (8, 4), 0, RqVaeConfig(batch=4))
    with pytest.raises(SemanticIdError, match="method: 'residual_kmeans' takes no RqVaeConfig"):
        tokenize_items(clustered(5), (8, 4), 0, rqvae=SMALL)
