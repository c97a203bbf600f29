from hypothesis import given
from hypothesis import strategies as st

from kikitori.scorers.trie import Trie, tries

SEQUENCES = st.lists(st.lists(st.integers(0, 2), max_size=5), max_size=12)


def spelled(trie: Trie, node: int) -> list[int]:
    labels = []
    while node >= 0:
        labels.append(trie.labels[node])
        node = trie.parents[node]
    return labels[::-1]


@given(SEQUENCES, st.integers(1, 20))
def test_every_sequence_is_a_path(sequences, most):
    found = tries(sequences, most)
    assert sorted(member for trie in found for member in trie.members) == list(range(len(sequences)))
    for trie in found:
        assert [spelled(trie, node) for node in trie.last] == [sequences[member] for member in trie.members]
        assert len(trie.labels) <= max(most, len(sequences[trie.members[0]]))


@given(SEQUENCES)
def test_what_begins_alike_is_there_once(sequences):
    nodes = {tuple(sequence[: end + 1]) for sequence in sequences for end in range(len(sequence))}
    assert sum(len(trie.labels) for trie in tries(sequences, 1000)) == len(nodes)


@given(SEQUENCES)
def test_what_is_below_a_node_follows_it(sequences):
    for trie in tries(sequences, 1000):
        for node, end in enumerate(trie.ends):
            below = [other for other in range(len(trie.labels)) if node in path(trie, other)]
            assert below == list(range(node, end))


def path(trie: Trie, node: int) -> list[int]:
    nodes = []
    while node >= 0:
        nodes.append(node)
        node = trie.parents[node]
    return nodes


def test_no_sequences():
    assert tries([], 10) == []


def test_a_trie_stays_small():
    parts = tries([[label] * 4 for label in range(5)], 9)
    assert [len(trie.labels) for trie in parts] == [8, 8, 4]
