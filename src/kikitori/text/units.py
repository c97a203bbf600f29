"""Label units: the alphabet that CTC heads and LLMs write in.

Characters, SentencePiece pieces and an LLM's own vocabulary are all kept as one Hugging Face fast tokenizer, whose
normalizer carries the text form (such as lower case without punctuation). A folder with `tokenizer.json` is therefore
all that a recogniser, an LLM or another toolkit needs to agree on the units.
"""

import copy
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import compress, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from kikitori.errors import ModelError, first_line
from kikitori.io.untrusted import read_object
from kikitori.text.forms.text_form import WORD_MARK as WORD_MARK  # also for those who take it from here
from kikitori.text.forms.text_form import TextForm, text_normalizer
from kikitori.text.tokenizer.fast import PLAIN, FastTokenizer, load_fast
from kikitori.text.tokenizer.files import check_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

UNK, BOS, EOS = "<unk>", "<s>", "</s>"
SPECIALS = (UNK, BOS, EOS)
FIRST_CHARACTERS = 24
"""Of a word that is kept in mind as having labels."""
PASSED_ON = (KeyboardInterrupt, SystemExit)
_BYTE = re.compile("<0x[0-9A-F]{2}>")
TEXT_FORM = "kikitori_text_form"
"""Key of tokenizer_config.json that names the form put before an LLM's own normalizer."""


class LabelUnits(Protocol):
    """What searches, prompts and training need to know of an output alphabet."""

    @property
    def size(self) -> int:
        """Number of labels; a CTC head has one more output, the blank, with id `size`."""
        ...

    @property
    def bos_id(self) -> int | None:
        """Begin-of-sentence label, if the alphabet has one."""
        ...

    @property
    def eos_id(self) -> int:
        """End-of-sentence label."""
        ...

    def encode(self, text: str) -> list[int]:
        """Text to labels, in the alphabet's text form and without special labels."""
        ...

    def decode(self, labels: Sequence[int]) -> str:
        """Labels to text; special labels are left out."""
        ...

    def special_id(self, token: str) -> int | None:
        """Id of a token that is a single vocabulary entry, or None."""
        ...


class TokenizerUnits:
    """Label units over a Hugging Face tokenizer: of transformers or, sooner loaded, of the library below it.

    Raises:
        ModelError: The tokenizer has no end-of-sentence token, without which no transcript would end.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase | FastTokenizer") -> None:
        if tokenizer.eos_token_id is None:
            raise ModelError(
                "the tokenizer names no end-of-sentence token",
                where=tokenizer.name_or_path or None,
                remedy="set eos_token in its tokenizer_config.json",
            )
        self.tokenizer = tokenizer
        self.size = len(tokenizer)
        self.bos_id: int | None = tokenizer.bos_token_id
        self.eos_id: int = int(tokenizer.eos_token_id)
        self._with_labels = set[str]()  # words that begin texts

    def encode(self, text: str) -> list[int]:
        """Text to labels without special labels: `</s>` in a transcript does not end it."""
        labels = self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        return [label for label in labels if label not in (self.bos_id, self.eos_id)]

    def have_labels(self, texts: Sequence[str]) -> list[bool]:
        """Whether `encode` finds any labels in each text; of most texts it is asked of the first word, and once."""
        words = [_first_word(text) for text in texts]
        fresh = [word for word in dict.fromkeys(words) if word not in self._with_labels]
        found_now = {*compress(fresh, self._have_labels(fresh))}
        found = [word in self._with_labels or word in found_now for word in words]
        self._with_labels |= {word for word in found_now if len(word) <= FIRST_CHARACTERS}
        doubtful = [row for row, there in enumerate(found) if not there]
        for row, there in zip(doubtful, self._have_labels([texts[row] for row in doubtful]), strict=True):
            found[row] = there
        return found

    def _have_labels(self, texts: Sequence[str]) -> list[bool]:
        if not texts:
            return []
        found = self.tokenizer([*texts], add_special_tokens=False, split_special_tokens=True, verbose=False)
        return [any(label not in (self.bos_id, self.eos_id) for label in labels) for labels in found["input_ids"]]

    def encode_with_places(self, text: str) -> list[tuple[int, int]]:
        """As `encode`, each label with the place in the text of its last character; none that stand for the unknown.

        Raises:
            ModelError: The tokenizer has no fast form, which alone knows the places.
        """
        if not self.tokenizer.is_fast:
            raise ModelError("the tokenizer does not tell places in a text", where=self.tokenizer.name_or_path)
        found = self.tokenizer(
            text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True, verbose=False
        )
        silent = (self.bos_id, self.eos_id, self.tokenizer.unk_token_id)
        pairs = zip(found["input_ids"], found["offset_mapping"], strict=True)
        return [(label, max(start, end - 1)) for label, (start, end) in pairs if label not in silent]

    def decode(self, labels: Sequence[int]) -> str:
        """Labels to text without special labels; bytes that are no UTF-8 become U+FFFD, one each."""
        tokens = self.tokenizer.convert_ids_to_tokens(list(labels), skip_special_tokens=True)
        if any(_is_byte(token) for token in tokens):
            # The tokenizers library would give up all bytes of a row for a single wrong one.
            return str(self.tokenizer.convert_tokens_to_string(_with_bytes_read(tokens))).strip()
        return str(self.tokenizer.decode(list(labels), skip_special_tokens=True)).strip()

    def special_id(self, token: str) -> int | None:
        """Id of a token that is a single vocabulary entry, or None."""
        if self.tokenizer.is_fast:
            index = self.tokenizer.backend_tokenizer.token_to_id(token)
        else:
            index = self.tokenizer.get_vocab().get(token)
        return None if index is None else int(index)

    def normalize(self, text: str) -> str:
        """The text in the form that the units write, such as lower case without punctuation."""
        normalizer = self.tokenizer.backend_tokenizer.normalizer if self.tokenizer.is_fast else None
        return text if normalizer is None else str(normalizer.normalize_str(text)).strip()

    @property
    def verbatim(self) -> "TokenizerUnits":
        """The same labels without the form of `with_text_form`: what an LLM's prompts are spelt with."""
        text_form = self.tokenizer.init_kwargs.get(TEXT_FORM)
        if text_form is None:
            return self
        from tokenizers import normalizers

        tokenizer = copy.deepcopy(self.tokenizer)
        del tokenizer.init_kwargs[TEXT_FORM]
        joined: Any = tokenizer.backend_tokenizer.normalizer
        form: Any = text_normalizer(text_form)
        own = [joined[index] for index in range(len(form), len(joined))]
        tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(own)
        return TokenizerUnits(tokenizer)

    @property
    def pretrained(self) -> "PreTrainedTokenizerBase":
        """The tokenizer in the form of transformers."""
        return self.tokenizer.pretrained() if isinstance(self.tokenizer, FastTokenizer) else self.tokenizer

    def save(self, directory: Path) -> None:
        """Writes the tokenizer files into a model folder."""
        self.pretrained.save_pretrained(directory)


def load_units(path_or_id: str | Path) -> TokenizerUnits:
    """Loads the units of a model folder or hub id.

    Raises:
        ModelError: There is no tokenizer, or it cannot be read.
    """
    if Path(path_or_id).is_dir() and not any(Path(path_or_id).glob("tokenizer*")):
        raise ModelError("the folder holds no tokenizer.json", where=path_or_id, remedy="copy the tokenizer files too")
    if Path(path_or_id).is_dir():
        check_tokenizer(Path(path_or_id))
    try:
        fast = load_fast(Path(path_or_id)) if Path(path_or_id).is_dir() else None
    except PASSED_ON:
        raise
    except BaseException as error:  # noqa: BLE001  (the tokenizers library raises plain Exception, and panics)
        raise _not_loaded(path_or_id, error) from None
    return TokenizerUnits(fast or _load_pretrained(path_or_id))


def _load_pretrained(path_or_id: str | Path) -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    try:
        if _is_plain(Path(path_or_id)):
            tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(str(path_or_id))
        else:
            tokenizer = AutoTokenizer.from_pretrained(str(path_or_id), trust_remote_code=False)
    except PASSED_ON:
        raise
    except BaseException as error:  # noqa: BLE001  (as above)
        raise _not_loaded(path_or_id, error) from None
    return cast("PreTrainedTokenizerBase", tokenizer)


def _not_loaded(path_or_id: str | Path, error: BaseException) -> ModelError:
    what = f"cannot load the tokenizer ({first_line(error)})"
    if Path(path_or_id).is_dir() and not (Path(path_or_id) / "tokenizer.json").exists():
        return ModelError(what, where=path_or_id, remedy="copy the tokenizer files too, such as tokenizer.json")
    return ModelError(what, where=path_or_id)


def with_text_form(units: TokenizerUnits, text_form: TextForm) -> TokenizerUnits:
    """An LLM's units that write transcripts in a text form; `as_is` leaves the tokenizer as it is (papers.md B1.4).

    The form comes before the LLM's own normalizer, inside the tokenizer, so that it is saved with it.

    Raises:
        ModelError: The tokenizer has no fast form.
    """
    if text_form == "as_is":
        return units
    from tokenizers import Tokenizer, normalizers
    from transformers import PreTrainedTokenizerFast

    old = units.verbatim.tokenizer
    if not old.is_fast:
        raise ModelError(
            "the tokenizer takes no text form", where=old.name_or_path, remedy="set units.text_form: as_is"
        )
    backend = Tokenizer.from_str(old.backend_tokenizer.to_str())
    form, own = text_normalizer(text_form), backend.normalizer
    backend.normalizer = normalizers.Sequence([form] if own is None else [form, own])
    # Not of the old class: that of Qwen2, for one, makes a normalizer of its own whenever it is loaded.
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        name_or_path=old.name_or_path,
        clean_up_tokenization_spaces=old.clean_up_tokenization_spaces,
        additional_special_tokens=[t for t in old.all_special_tokens if t not in old.special_tokens_map.values()],
        **old.special_tokens_map,
        **{TEXT_FORM: text_form},
    )
    return TokenizerUnits(tokenizer)


def differing_labels(units: TokenizerUnits, others: TokenizerUnits) -> Iterator[str]:
    """Labels of some units to which others, which may have more, give no number or another."""
    number_of = others.tokenizer.backend_tokenizer.token_to_id
    return (label for label, number in units.tokenizer.get_vocab().items() if number_of(label) != number)


def equal_units(some: TokenizerUnits, others: TokenizerUnits) -> bool:
    """Whether both stand for the same labels."""
    return some.size == others.size and bool(some.tokenizer.get_vocab() == others.tokenizer.get_vocab())


def vocabulary_fingerprint(units: TokenizerUnits) -> str:
    """A hash of the labels and their order, equal for units that stand for the same labels in any text form."""
    return labels_fingerprint(units.tokenizer.convert_ids_to_tokens([*range(units.size)]))


def labels_fingerprint(labels: Sequence[str]) -> str:
    """A hash of the names of some labels, such as phones, and of their order."""
    return hashlib.sha256(json.dumps([*labels]).encode()).hexdigest()


def _first_word(text: str) -> str:
    """The beginning of a text, up to a space where there is one; what has labels there has labels as a whole."""
    word = text.lstrip(" ").partition(" ")[0]
    return word if len(word) <= FIRST_CHARACTERS else text


def _is_byte(token: str | None) -> bool:
    return token is not None and _BYTE.fullmatch(token) is not None


def _with_bytes_read(tokens: Iterable[str | None]) -> list[str]:
    """Tokens in which those for single bytes are replaced by the characters that the bytes spell."""
    read: list[str] = []
    for are_bytes, run in groupby((token for token in tokens if token is not None), _is_byte):
        if are_bytes:
            spelled = bytes(int(token[3:5], 16) for token in run).decode("utf-8", "surrogateescape")
            read += ["\ufffd" if "\udc80" <= character <= "\udcff" else character for character in spelled]
        else:
            read += run
    return read


def _is_plain(folder: Path) -> bool:
    """Whether tokenizer.json says all, though transformers may know another class for the folder's kind of LLM."""
    settings = folder / "tokenizer_config.json"
    plain = (folder / "tokenizer.json").is_file() and settings.is_file()
    return plain and read_object(settings).get("tokenizer_class") == PLAIN
