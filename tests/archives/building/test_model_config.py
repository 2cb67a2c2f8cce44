from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from archives.building.model_config import TEXT, ModelConfig, read_model_config
from archives.errors import UsageError


def read(text: str, folder: Path) -> ModelConfig:
    (folder / "own.yaml").write_text(text)
    return read_model_config(folder / "own.yaml")


def test_keys_replace_ours_and_the_comments_stay(tmp_path: Path) -> None:
    assert ModelConfig().text() == TEXT
    text = read("batchSize: 2\ndeviceType: cpu\n", tmp_path).text()
    assert yaml.safe_load(text) == yaml.safe_load(TEXT) | {"batchSize": 2, "deviceType": "cpu"}
    assert text.count("#") == TEXT.count("#")


def test_whyboxs_own(tmp_path: Path) -> None:
    text = "whybox:\n  buckets: [one]\n  defaults: {method: layercam, score_threshold: 0.7}\n"
    config = read(text, tmp_path)
    assert config.buckets == ("one",)
    assert config.defaults == {"method": "layercam", "score_threshold": 0.7}
    assert yaml.safe_load(config.text())["whybox"] == yaml.safe_load(text)["whybox"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batchsize: 2", "unknown key 'batchsize'; expected minWorkers, "),
        ("handler: a.py", "unknown key 'handler'"),
        ("batchSize: two", "batchSize: got 'two'; expected an integer from 1 to 1000"),
        ("batchSize: 0", "batchSize: got 0; expected an integer from 1"),
        ("batchSize: true", "batchSize: got True; expected an integer"),
        ("deviceType: tpu", "deviceType: got 'tpu'; expected cpu, gpu"),
        ("minWorkers: 3", "maxWorkers: got 1; expected at least minWorkers, 3"),
        ("batchSize: 1\nbatchSize: 2", "batchSize is there twice"),
        ("whybox: {bucket: [a]}", "unknown key 'whybox.bucket'; expected buckets, defaults"),
        ("whybox: {buckets: a}", "whybox.buckets should be a list"),
        ("whybox: 3", "whybox should be a table"),
        ("- 1", "should be a table"),
        ("", "should be a table"),
        ("a: [", "is not YAML"),
        ("!!python/object/apply:os.getcwd []", "is not YAML"),
    ],
)
def test_what_is_refused_by_name(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read(text, tmp_path)
    assert message in str(caught.value)
    assert "own.yaml" in str(caught.value)
