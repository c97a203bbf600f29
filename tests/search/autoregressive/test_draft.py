import random

import pytest

from kikitori.search.autoregressive.draft import Draft, pass_size


def passes(target, labels):
    """Passes that read the whole draft each time, the end included; what was written is checked."""
    draft, done = Draft(labels), 0
    target = [*target, None]
    for count in range(1, len(target) + 1):
        for proposal in [*draft.ahead(10**6), None]:
            label = target[done]
            if label is None:
                return count
            draft.write(label)
            done += 1
            if label != proposal:
                break
    raise AssertionError("no progress")


TARGET = list(range(100, 140))


@pytest.mark.parametrize(
    ("labels", "most"),
    [
        (TARGET, 1),
        ([*TARGET[:20], 7, *TARGET[21:]], 2),  # substituted
        ([*TARGET[:20], 7, *TARGET[20:]], 2),  # one too many
        ([*TARGET[:20], *TARGET[21:]], 3),  # one is missing
        ([*TARGET[:20], 7, 8, *TARGET[22:]], 3),
        ([*TARGET[:20], 7, 8, 9, *TARGET[20:]], 5),
        ([*TARGET[:20], *TARGET[23:]], 5),
        ([7, *TARGET[1:39], 8], 3),
        ([*TARGET, 7, 7, 7], 1),
        (TARGET[:30], 11),
        ([], 41),
        ([7] * 100, 41),
        (TARGET[::-1], 41),
    ],
)
def test_passes(labels, most):
    assert passes(TARGET, labels) <= most


def test_passes_of_corrupted_drafts():
    """Mean passes for 40 labels; a local rule of thumb takes 3.5, 6.2 and 11.0."""
    stream = random.Random(1)  # noqa: S311
    for rate, most in ((0.05, 3.6), (0.1, 6.0), (0.2, 11.0)):
        counts = []
        for _ in range(100):
            target = [stream.randrange(1000) for _ in range(40)]
            labels = []
            for label in target:
                slip = stream.random() / rate
                if slip < 0.6:
                    labels.append(stream.randrange(1000))
                elif slip < 0.8:
                    labels += [stream.randrange(1000), label]
                elif slip >= 1.0:
                    labels.append(label)
            counts.append(passes(target, labels))
        assert sum(counts) / len(counts) < most


def test_place_has_the_fewest_edits():
    def edits(one, other):
        row = list(range(len(other) + 1))
        for place, label in enumerate(one):
            before, row[0] = row[0], place + 1
            for column, theirs in enumerate(other):
                before, row[column + 1] = (
                    row[column + 1],
                    min(row[column + 1] + 1, row[column] + 1, before + (label != theirs)),
                )
        return row

    stream = random.Random(2)  # noqa: S311
    for _ in range(300):
        labels = [stream.randrange(3) for _ in range(stream.randrange(8))]
        draft, written = Draft(labels), []
        for _ in range(10):
            proposal = draft.ahead(1)
            written.append(stream.randrange(3))
            draft.write(written[-1])
            place = len(labels) - len(draft.ahead(100))
            if proposal != written[-1:]:
                distances = edits(written, labels)
                assert distances[place] == min(distances)


def test_reliability():
    draft = Draft(range(1000))
    assert draft.reliability == 1.0
    for label in range(100):
        draft.write(label)
    assert draft.reliability > 0.99
    for _ in range(100):
        draft.write(-5)
    assert draft.reliability < 0.15
    over = Draft([1])
    over.write(1)
    before = over.reliability
    over.write(5)
    assert over.reliability == before  # proposed nothing


def test_pass_size():
    assert pass_size([0.9], [0], 0.05) == 0
    assert pass_size([0.01], [50], 0.05) == 0
    assert pass_size([1.0], [50], 0.05) == 50
    sizes = [pass_size([rate], [50], 0.05) for rate in (0.2, 0.4, 0.6, 0.8, 0.9, 0.95)]
    assert sizes == sorted(sizes)
    assert 1 <= sizes[0] < sizes[-1] < 30
    assert pass_size([0.8], [50], 0.3) < pass_size([0.8], [50], 0.03)
    assert pass_size([0.9, 0.0], [50, 50], 0.05) < pass_size([0.9], [50], 0.05)


@pytest.mark.parametrize("price", [0.02, 0.1, 0.4])
def test_pass_size_is_the_best(price):
    stream = random.Random(3)  # noqa: S311
    for _ in range(20):
        rates = [stream.random() for _ in range(3)]
        most = [stream.randrange(20) for _ in range(3)]

        def value(size, rates=rates, most=most):
            rows = zip(rates, most, strict=True)
            gain = sum(sum(rate**place for place in range(min(size, m) + 1)) for rate, m in rows)
            return gain / (1 + price * size)

        assert value(pass_size(rates, most, price)) == pytest.approx(max(value(size) for size in range(25)))
