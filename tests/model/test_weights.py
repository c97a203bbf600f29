import torch
from torch import nn

from kikitori.model.weights import weights_digest


def test_a_digest_is_of_names_and_numbers():
    def layer(seed, **more):
        torch.manual_seed(seed)
        return nn.Linear(3, 2, **more)

    same = weights_digest(layer(0))
    assert same == weights_digest(layer(0))
    assert len(same) == 64
    others = [layer(1), layer(0).half(), layer(0, bias=False), nn.Sequential(layer(0))]
    assert len({same, *map(weights_digest, others)}) == 5
