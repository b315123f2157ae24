"""Where a training writes its model: what keeps it from there is one sentence, whichever library says it."""

from pathlib import Path

import pytest
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from rlhf_dagster.errors import UserError
from rlhf_dagster.training.runtime.output import writing_output

NO_ROOM = Path("/dev/full")


@pytest.mark.skipif(not NO_ROOM.exists(), reason="a system without /dev/full")
def test_a_full_disk_is_one_sentence_where_a_tokenizer_meets_it(tmp_path: Path) -> None:
    said = r"policy: the trained model cannot be written \(.*os error 28.*\); mend that and train again"
    with pytest.raises(UserError, match=said), writing_output(tmp_path / "policy"):
        Tokenizer(WordLevel({"a": 0}, unk_token="a")).save(str(NO_ROOM))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_gone_is_one_sentence(tmp_path: Path) -> None:
    cannot = pytest.raises(UserError, match="policy: the trained model cannot be written")
    with cannot, writing_output(tmp_path / "policy") as folder:
        save_file({}, folder / "gone" / "model.safetensors")


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="the vocabulary has a hole"), writing_output(tmp_path / "policy"):
        raise Exception("the vocabulary has a hole")  # noqa: TRY002
