import shutil

from kikitori.train.loop.provenance import differences, digest, environment


def test_git_is_optional(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert environment()["git"] is None
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert environment()["git"] is None


def test_a_digest_depends_on_contents_and_order():
    rows = [["a", 1.0, "é"], ["b", 2.0, None]]
    assert digest(rows) == digest([list(row) for row in rows])
    assert len({digest(rows), digest(rows[::-1]), digest(rows[:1]), digest([])}) == 4


def test_differences_name_what_a_run_depends_on():
    then = {
        "data": "1",
        "recipe": {"seed": 1, "optim": {"lr": 0.1}, "ctc": {"weights": {"2": 1.0}}},
        "environment": {"git": "a", "started": "x", "versions": {"torch": "2.11", "numpy": "2.0"}},
    }
    assert differences(then, then) == []
    now = {
        "data": "2",
        "recipe": {"seed": 1, "optim": {"lr": 0.2}, "ctc": {"weights": {}}, "prompt": "plain"},
        "environment": {"git": "b", "started": "y", "versions": {"torch": "2.13", "numpy": "2.0"}},
    }
    assert differences(then, now) == [
        "the training data are not those of the checkpoint; the result will not be an uninterrupted run's",
        "recipe.ctc.weights is {}, and was None in the checkpoint",
        "recipe.ctc.weights.2 is None, and was 1.0 in the checkpoint",
        "recipe.optim.lr is 0.2, and was 0.1 in the checkpoint",
        "recipe.prompt is plain, and was None in the checkpoint",
        "environment.versions.torch is 2.13, and was 2.11 in the checkpoint",
    ]


def test_an_older_form_of_the_same_recipe_is_no_difference():
    old = {"optim": {"lr": 0.1, "eps": 1e-8}, "denoising": {"share": 0.5, "error_rate": 0.4}, "bridge": None}
    old |= {"ctc": {"weights": {}, "policy": "full"}}  # of another task
    new = {"optim": {"lr": 0.1}, "text_injection": {"share": 0.5}}
    assert differences({"recipe": old}, {"recipe": new}) == []
    changed = differences({"recipe": old | {"denoising": {"share": 0.25}}}, {"recipe": new})
    assert changed == ["recipe.text_injection.share is 0.5, and was 0.25 in the checkpoint"]
