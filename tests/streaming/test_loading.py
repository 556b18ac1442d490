"""Hub models that are not cached, do not exist, or are restricted: reported at once, with a remedy."""

import threading
import time

import httpx
import huggingface_hub
import pytest
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

from neucodec_streaming import ModelError, load_codec, loading

NAME = "nobody/such-a-model"
RESPONSE = httpx.Response(403, request=httpx.Request("GET", "https://hub.invalid"))


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            GatedRepoError("no", response=RESPONSE),
            f"gated: accept its terms at https://huggingface.co/{NAME} and set HF_TOKEN",
        ),
        (RepositoryNotFoundError("no", response=RESPONSE), "no model 'nobody/such-a-model'.*HF_TOKEN"),
        (OSError("no route\nto host"), r"cannot be reached \(no route\): check the name and the network"),
    ],
    ids=["gated", "missing", "offline"],
)
def test_a_failed_download_is_reported_with_its_reason(error, says, monkeypatch):
    def refuse(*args, **options):
        raise error

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse)
    with pytest.raises(ModelError, match=says):
        load_codec(NAME)


def test_a_hub_that_does_not_answer_is_not_waited_for(monkeypatch):
    never = threading.Event()
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *args, **options: never.wait(30))
    monkeypatch.setattr(loading, "HUB_PATIENCE_S", 0.05)
    begin_s = time.monotonic()
    with pytest.raises(ModelError, match=r"no answer within 0\.05 s"):
        load_codec(NAME)
    assert time.monotonic() - begin_s < 4
    never.set()


def test_a_checkpoint_in_the_original_layout_is_fetched(monkeypatch, tmp_path):
    class Info:
        siblings = (type("File", (), {"rfilename": "pytorch_model.bin"}),)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *args, **options: Info)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda name, file: str(tmp_path / file))
    assert loading.hub_checkpoint(NAME) == tmp_path / "pytorch_model.bin"
