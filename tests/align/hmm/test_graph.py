from kikitori.align.hmm.graph import SILENCE, state_labels, utterance_graph
from kikitori.text.lexicon import Lexicon

LEXICON = Lexicon({"a": (("ax",), ("ey",)), "tea": (("t", "iy"),)})
NUMBERS = {phone: number for number, phone in enumerate((*LEXICON.phones, SILENCE))}


def paths(graph):
    """Every path through a graph, as the names of its phones."""
    names = [label.rpartition("/")[0] for label in state_labels(LEXICON.phones)]

    def back(place):
        here = [graph.labels[place]]
        found = [here] if graph.first[place] else []
        for before in graph.before[graph.offsets[place] : graph.offsets[place + 1]]:
            found += [path + here for path in back(before)]
        return found

    last = [place for place in range(len(graph.labels)) if graph.last[place]]
    return sorted(tuple(names[label] for label in path[::3]) for place in last for path in back(place))


def test_every_pronunciation_with_or_without_silence_is_a_path():
    sil = (SILENCE,)
    expected = [
        before + said + between + ("t", "iy") + after
        for before in ((), sil)
        for said in (("ax",), ("ey",))
        for between in ((), sil)
        for after in ((), sil)
    ]
    assert paths(utterance_graph("a tea", LEXICON, NUMBERS)) == sorted(expected)


def test_states_follow_each_other_and_paths_go_forward():
    graph = utterance_graph("tea a", LEXICON, NUMBERS)
    for place in range(len(graph.labels)):
        before = graph.before[graph.offsets[place] : graph.offsets[place + 1]]
        assert (before < place).all()
        if graph.labels[place] % 3:
            assert before.tolist() == [place - 1]


def test_what_cannot_be_said_has_no_graph():
    assert utterance_graph("green tea", LEXICON, NUMBERS) is None
    assert utterance_graph("", LEXICON, NUMBERS) is None
