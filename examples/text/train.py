"""Train a character-level LSTM on the last 55 chapters of Pride and Prejudice.

The network reads a character at a time and predicts the next. The text is cut into 32 streams that
are read side by side, and the state is carried from one stretch of 128 characters to the next, so
that the memory can be longer than what gradients reach (Karpathy, Johnson and Fei-Fei 2015,
arXiv:1506.02078, section 3). The first six chapters are never trained on.

    python examples/text/train.py --output char_lstm.safetensors

Needs PyTorch. About four minutes on one core.
"""

import argparse
import gzip
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

HERE = Path(__file__).parent
BOOK = HERE / "data" / "pride_and_prejudice.txt.gz"
FIRST_SEEN = "Chapter 7\n"
UNITS = 128
STREAMS, STRETCH = 32, 128


class CharLSTM(nn.Module):
    """An LSTM over one-hot characters that predicts the next character."""

    def __init__(self, characters: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(characters, UNITS, batch_first=True)
        self.head = nn.Linear(UNITS, characters)

    def forward(
        self, x: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return scores of the next character, shape (batch, time, characters), and the state."""
        h, state = self.lstm(x, state)
        return self.head(h), state


def load_book() -> tuple[str, str]:
    """Return what is trained on, and what is not."""
    book = gzip.decompress(BOOK.read_bytes()).decode("ascii")
    unseen, seen = book.split(FIRST_SEEN)
    return FIRST_SEEN + seen, unseen


def vocabulary(text: str) -> str:
    """Return the characters of a text, in their order."""
    return "".join(sorted(set(text)))


def one_hot(text: str, characters: str) -> Tensor:
    """Return a text as rows with a one each, shape (time, characters)."""
    place = np.full(128, -1)
    place[[ord(character) for character in characters]] = np.arange(len(characters))
    indices = torch.from_numpy(place[np.frombuffer(text.encode("ascii"), np.uint8)])
    return nn.functional.one_hot(indices, len(characters)).float()


def train(model: CharLSTM, text: Tensor, epochs: int, stretches: int | None = None) -> float:
    """Train on rows of shape (time, characters); return the last epoch's mean loss in bits."""
    length = (len(text) - 1) // (STREAMS * STRETCH) * STRETCH
    streams = text[: STREAMS * length].reshape(STREAMS, length, -1)
    following = text[1 : STREAMS * length + 1].argmax(-1).reshape(STREAMS, length)
    starts = range(0, length, STRETCH)[:stretches]
    optimiser = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=1e-2, total_steps=epochs * len(starts)
    )
    bits = float("nan")
    for epoch in range(epochs):
        state, losses = None, []
        for start in starts:
            here = slice(start, start + STRETCH)
            scores, state = model(streams[:, here], state)
            loss = nn.functional.cross_entropy(scores.flatten(0, 1), following[:, here].flatten())
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            state = tuple(part.detach() for part in state)
            losses.append(loss.item())
        bits = float(np.mean(losses) / np.log(2))
        print(f"epoch {epoch + 1}: {bits:.3f} bits a character", flush=True)
    return bits


@torch.no_grad()
def bits_per_character(model: CharLSTM, text: Tensor) -> float:
    """Return the mean loss on a text that is read in one pass, in bits."""
    scores, _ = model(text[None, :-1])
    loss = nn.functional.cross_entropy(scores[0], text[1:].argmax(-1))
    return loss.item() / float(np.log(2))


def main() -> None:
    """Train and write the weights."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("char_lstm.safetensors"))
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--stretches", type=int, help="of each stream; default: all")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)

    seen, unseen = load_book()
    characters = vocabulary(seen + unseen)
    model = CharLSTM(len(characters))
    train(model, one_hot(seen, characters), arguments.epochs, arguments.stretches)
    held_out = bits_per_character(model, one_hot(unseen, characters))
    print(f"unseen chapters: {held_out:.3f} bits a character")
    save_file(model.state_dict(), arguments.output, metadata={"characters": characters})
    print(f"wrote {arguments.output} ({arguments.output.stat().st_size} bytes)")


if __name__ == "__main__":
    main()
