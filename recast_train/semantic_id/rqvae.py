"""RQ-VAE: an autoencoder whose latent is quantised residually (arXiv 2203.01941; for semantic IDs, TIGER, arXiv 2305.05065).

Axis letters: I items, N items of a batch, L levels, D latent dimensions, E embedding dimensions, C codes of a level.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recast_sim.runs import derive_seed
from recast_train.semantic_id.quantised import Floats, Quantised, checked, different_vectors, refuse_too_many
from recast_train.semantic_id.sid_config import RqVaeConfig
from recast_train.semantic_id.sid_error import SemanticIdError


class RqVae(nn.Module):
    """Encoder, one codebook a level, decoder. The codebooks are zeros until they are set from the first batch."""

    def __init__(self, width: int, sizes: Sequence[int], config: RqVaeConfig) -> None:
        super().__init__()
        widths = (width, *config.hidden, config.latent)
        self.encoder, self.decoder = _mlp(widths), _mlp(widths[::-1])
        self.books = nn.ParameterList([nn.Parameter(torch.zeros(size, config.latent)) for size in sizes])

    def quantise(self, latent_ND: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Codes (N, L), the codes' vectors (L, N, D), and the residual before each level, through which no codebook learns."""
        codes, vectors, left = [], [], [latent_ND]
        for book in self.books:
            codes.append(nearest_code(left[-1].detach(), book.detach()))
            vectors.append(book[codes[-1]])
            left.append(left[-1] - vectors[-1].detach())
        return torch.stack(codes, 1), torch.stack(vectors), left[:-1]

    def loss(self, input_NE: Tensor, beta: float) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Mean over items of reconstruction + codebook + beta * commitment error (squared norms); codes; residuals."""
        latent_ND = self.encoder(input_NE)
        codes_NL, vectors_LND, left = self.quantise(latent_ND)
        rebuilt_NE = self.decoder(straight_through(latent_ND, vectors_LND.sum(0)))
        left_LND = torch.stack(left)
        codebook, commitment = left_LND.detach() - vectors_LND, left_LND - vectors_LND.detach()
        total = (input_NE - rebuilt_NE).square().sum() + codebook.square().sum() + beta * commitment.square().sum()
        return total / len(input_NE), codes_NL, left


def straight_through(latent_ND: Tensor, quantised_ND: Tensor) -> Tensor:
    """The quantised vectors; their gradient arrives at the latents unchanged, and not at the codebooks."""
    return latent_ND + (quantised_ND - latent_ND).detach()


def nearest_code(vectors_ND: Tensor, book_CD: Tensor) -> Tensor:
    """The nearest code of each vector, int64 (N,); the lowest of equals."""
    return (book_CD.square().sum(1) - 2 * vectors_ND @ book_CD.T).argmin(1)


def train_rqvae(
    embeddings_IE: NDArray[np.floating],
    sizes: Sequence[int],
    seed: int,
    config: RqVaeConfig,
    on_epoch: Callable[[int, int], None] = lambda *_: None,
) -> Quantised:
    """Train an RQ-VAE on the embeddings and quantise them with it; the same result for the same seed on one machine's CPU.

    The embeddings are centred and scaled by one number, so that their unit does not matter. Codebooks start as k-means of
    the first batch's residuals. A code that no item used for `revive_every` steps becomes a random residual of the batch;
    not in the last such window, so that the decoder has seen every code for as long. AdamW; weight decay on the MLPs alone.
    Raises SemanticIdError for embeddings that are not a finite (I, E), an empty catalog, a level with more codes than there
    are different vectors or items in a batch, and a loss that is not finite.
    """
    embeddings = checked(embeddings_IE, sizes)
    for level, size in enumerate(sizes, start=1):
        refuse_too_many(size, embeddings, level)
    if config.batch < max(sizes):
        raise SemanticIdError(f"RqVaeConfig.batch: {config.batch} is less than {max(sizes)}, the largest of sizes; raise it")
    centre_E = embeddings.mean(axis=0)
    scale = float(np.sqrt(((embeddings - centre_E) ** 2).mean())) or 1.0
    input_IE = torch.from_numpy(((embeddings - centre_E) / scale).astype(np.float32))
    with torch.random.fork_rng(devices=[]):  # the layers draw their weights from the global generator
        torch.manual_seed(derive_seed(seed, "rqvae", "weights"))
        model = RqVae(embeddings.shape[1], sizes, config)
    _fit(model, input_IE, config, derive_seed(seed, "rqvae"), on_epoch)

    @torch.no_grad()
    def decode(rebuilt_ID: Floats) -> Floats:
        return model.decoder(torch.from_numpy(rebuilt_ID.astype(np.float32))).double().numpy() * scale + centre_E

    with torch.no_grad():
        latent_ID = model.encoder(input_IE).double().numpy()
    if not np.isfinite(latent_ID).all():
        raise _diverged(math.nan, config.epochs)
    return _quantised(latent_ID, tuple(book.detach().double().numpy() for book in model.books), decode)


def _mlp(widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inner, outer in pairwise(widths):
        layers += [nn.Linear(inner, outer), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _fit(model: RqVae, input_IE: Tensor, config: RqVaeConfig, seed: int, on_epoch: Callable[[int, int], None]) -> None:
    draw = torch.Generator().manual_seed(seed)
    total = config.epochs * math.ceil(len(input_IE) / config.batch)
    networks = [*model.encoder.parameters(), *model.decoder.parameters()]
    groups: list[dict[str, Any]] = [{"params": networks}, {"params": list(model.books), "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, total)
    used = [torch.zeros(len(book), dtype=torch.bool) for book in model.books]
    for step, epoch, input_NE in _batches(input_IE, config, draw):
        if step == 0:
            _start_books(model, input_NE, seed)
        loss, codes_NL, left = model.loss(input_NE, config.beta)
        if not torch.isfinite(loss):
            raise _diverged(loss.item(), epoch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        for level, used_C in enumerate(used):
            used_C[codes_NL[:, level]] = True
        window = config.revive_every
        if window and (step + 1) % window == 0:
            if step + 1 + window <= total:
                _revive(model, used, left, draw)
            used = [torch.zeros_like(used_C) for used_C in used]
        on_epoch(epoch, config.epochs)


def _batches(input_IE: Tensor, config: RqVaeConfig, draw: torch.Generator) -> Iterator[tuple[int, int, Tensor]]:
    """Step (from 0), epoch (from 1) and the batch, shuffled in each epoch."""
    step = 0
    for epoch in range(1, config.epochs + 1):
        for rows in torch.randperm(len(input_IE), generator=draw).split(config.batch):
            yield step, epoch, input_IE[rows]
            step += 1


@torch.no_grad()
def _start_books(model: RqVae, input_NE: Tensor, seed: int) -> None:
    """Each codebook is k-means of what the levels before it leave; where that has fewer different vectors, items fill up."""
    from sklearn.cluster import KMeans

    left_ND = model.encoder(input_NE)
    for level, book in enumerate(model.books):
        vectors_ND = left_ND.double().numpy()
        if not np.isfinite(vectors_ND).all():
            raise _diverged(math.nan, 1)
        count = min(len(book), different_vectors(vectors_ND))
        settings: dict[str, Any] = {"n_init": 1, "random_state": derive_seed(seed, "start", level) % 2**32}
        centres = KMeans(count, **settings).fit(vectors_ND).cluster_centers_
        book.copy_(torch.from_numpy(np.concatenate([centres, vectors_ND])[: len(book)]))
        left_ND = left_ND - book[nearest_code(left_ND, book)]


@torch.no_grad()
def _revive(model: RqVae, used: list[Tensor], left: list[Tensor], draw: torch.Generator) -> None:
    for book, used_C, left_ND in zip(model.books, used, left, strict=True):
        dead = (~used_C).nonzero()[:, 0]
        rows = torch.randperm(len(left_ND), generator=draw).repeat(math.ceil(len(dead) / len(left_ND)))[: len(dead)]
        book[dead] = left_ND[rows]


def _quantised(latent_ID: Floats, books: tuple[Floats, ...], decode: Callable[[Floats], Floats]) -> Quantised:
    from sklearn.metrics import pairwise_distances_argmin

    codes, left_ID = [], latent_ID
    for book in books:
        codes.append(np.asarray(pairwise_distances_argmin(left_ID, book), dtype=np.int64))
        left_ID = left_ID - book[codes[-1]]
    return Quantised(latent_ID, books, np.stack(codes, axis=1), decode)


def _diverged(loss: float, epoch: int) -> SemanticIdError:
    return SemanticIdError(f"RQ-VAE: loss is {loss} in epoch {epoch}; lower RqVaeConfig.learning_rate")
