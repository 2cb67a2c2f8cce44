from __future__ import annotations

from pathlib import Path

from archives.serving.draining import BatchLog

LINE = "2026-11-22T08:47:52,243 [INFO ] W-{}-demo_1.0 org.pytorch.serve.wlm.WorkerThread - {}\n"
BEGUN, DONE = "Looping backend response at: 1795337272243", "Backend response time: 74536"


def write(path: Path, *lines: tuple[int, str]) -> None:
    with path.open("a") as file:
        file.write("".join(LINE.format(*each) for each in lines))


def test_who_is_at_work(tmp_path: Path) -> None:
    path = tmp_path / "ts_log.log"
    write(path, (9000, BEGUN), (9000, DONE), (9001, BEGUN), (9000, "Connecting to: socket"))
    log = BatchLog(path)
    log.read()
    assert [log.at_work(each) for each in ("9000", "9001", "9002")] == [False, True, False]
    write(path, (9001, DONE), (9000, BEGUN))
    # It ends in the middle of a line.
    path.write_text(path.read_text() + LINE.format(9002, BEGUN)[:70])
    log.read()
    assert [log.at_work(each) for each in ("9000", "9001", "9002")] == [True, False, False]
    path.write_text(path.read_text() + LINE.format(9002, BEGUN)[70:])
    log.read()
    assert log.at_work("9002")
    assert [log.begun(each) for each in ("9000", "9001", "9003")] == [2, 1, 0]
    log.close()


def test_the_log_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "ts_log.log"
    write(path, (9000, BEGUN))
    log = BatchLog(path)
    log.read()
    write(path, (9000, DONE), (9001, BEGUN))
    path.rename(tmp_path / "ts_log.1.log")
    log.read()  # the new file is not there yet
    assert not log.at_work("9000")
    write(path, (9001, DONE), (9000, BEGUN))
    log.read()
    assert [log.at_work(each) for each in ("9000", "9001")] == [True, False]
    log.close()
