"""Seeds: one purpose gives the same numbers, another purpose different ones."""

import torch

from pipeline.training.seeds import generator, scoped_seed, seeded


def test_same_seed_and_purpose_give_the_same_draws():
    assert torch.equal(
        torch.rand(5, generator=generator(3, "order", 1)), torch.rand(5, generator=generator(3, "order", 1))
    )


def test_another_seed_or_purpose_gives_other_draws():
    seeds = {
        scoped_seed(*scope) for scope in [(0,), (1,), (0, "order", 1), (0, "order", 2), (0, "moves", 1), (0, "order1")]
    }
    assert len(seeds) == 6


def test_seeded_weights_do_not_depend_on_what_was_drawn_before_and_leave_torchs_generator_alone():
    def weights():
        with seeded(0, "encoder", "resnet50"):
            return torch.nn.Linear(3, 3).weight

    first = weights()
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    assert torch.equal(first, weights())
    assert torch.equal(torch.rand(2), expected)
