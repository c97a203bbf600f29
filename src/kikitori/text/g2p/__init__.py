"""Where pronunciations come from: words in, phones out.

- `sources`: what all sources are (`Pronouncer`), a lexicon of several in turn, and their names on the command line.
- `dictionary`: files in CMUdict's format, ARPAbet, marks of stress · `english`: words formed of others
- `programs`: flite and espeak-ng · `japanese`: kana by a table, any text through Open JTalk
"""
