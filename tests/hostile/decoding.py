"""Attacks by decoding.yaml."""

from tests.hostile.attack import add, void

# CANARY stands for the file that planted code creates.
TEXTS = {
    "yaml_that_runs_a_command": "search: !!python/object/apply:os.system ['touch CANARY']\n",
    "yaml_that_builds_an_object": "!!python/object/new:subprocess.Popen [['touch', 'CANARY']]\n",
    "yaml_of_aliases": "a: &a [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
    "yaml_of_10_megabytes": "# " + "x" * (10 << 20),
    "yaml_that_reads_the_environment": "search: ${oc.env:KIKITORI_SECRET}\n",
    "yaml_that_reads_the_environment_in_disguise": 'search: "\\x24{oc.env:KIKITORI_SECRET}"\n',
    "yaml_that_reads_the_environment_by_parts": "search: ${oc.${max_labels}:KIKITORI_SECRET}\nmax_labels: env\n",
    "yaml_of_interpolations": "k0: xxxxxxxx\n" + "".join(f"k{i}: ${{k{i - 1}}}${{k{i - 1}}}\n" for i in range(1, 60)),
    "yaml_of_interpolations_in_disguise": "k0: xxxxxxxx\n"
    + "".join(f'k{i}: "\\x24{{k{i - 1}}}\\x24{{k{i - 1}}}"\n' for i in range(1, 28)),
    "yaml_of_long_interpolations": f"a: {'x' * 900_000}\n"
    + "".join(f"{b}: {f'${{{a}}}' * 3}\n" for a, b in zip("abcde", "bcdef", strict=True)),
    "yaml_nested_deeply": "search: " + "[" * 100_000,
    "yaml_with_an_unknown_key": "serach: greedy\n",
    "yaml_of_another_type": "- search\n",
    "yaml_with_nan": "max_labels: .nan\n",
    "yaml_with_a_date": "max_labels: 2020-01-01\n",
    "yaml_with_too_many_digits": "max_labels: " + "9" * 100_000 + "\n",
    "yaml_that_is_binary": "\0\1\2",
    "yaml_with_an_lm_elsewhere": "search: shallow_fusion\nlm: ../elsewhere\n",
    "yaml_with_an_lm_of_the_hub": "search: delayed_fusion\nlm: {path: someone/model}\n",
    "yaml_with_an_ngram_elsewhere": "search: shallow_fusion\nngram: /proc/self/mem.bin\n",
    "yaml_with_a_draft_elsewhere": "search: speculative\ndraft: {search: lexicon, lexicon: /dev/zero}\n",
    "yaml_with_a_prior_elsewhere": "search: rescoring\npriors: {p: {path: /dev/zero}}\nscales: {p: 1.0}\n",
}
for _name, _text in TEXTS.items():
    add(
        _name,
        lambda model, text=_text: void(
            (model / "decoding.yaml").write_text(text.replace("CANARY", str(model.parent / "canary")))
        ),
    )
