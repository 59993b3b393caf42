from threading import Barrier, current_thread, main_thread

import pytest

from skystill.predict.several import run_in_order


def test_results_come_in_order_and_errors_with_their_job() -> None:
    def run(job: int) -> int:
        if job == 3:
            raise ValueError("three")
        return job * job

    found = list(run_in_order(range(8), run, lambda job: job != 5, 2))
    assert [job for job, _ in found] == list(range(8))
    assert [result for job, result in found if job != 3] == [0, 1, 4, 16, 25, 36, 49]
    assert isinstance(found[3][1], ValueError)


def test_small_jobs_run_together_and_a_large_one_alone() -> None:
    together, running, most = Barrier(2, timeout=60), set[int](), dict[int, set[int]]()

    def run(job: int) -> bool:
        running.add(job)
        if job < 4:
            together.wait()  # ends only if two run at the same time
        most[job] = set(running)
        running.discard(job)
        return current_thread() is main_thread()

    found = dict(run_in_order(range(6), run, lambda job: job < 4, 2))
    assert found == {0: False, 1: False, 2: False, 3: False, 4: True, 5: True}
    assert most[4] == {4} and most[5] == {5}


def test_an_interruption_finishes_what_has_begun_and_begins_nothing() -> None:
    begun: list[int] = []

    def run(job: int) -> int:
        begun.append(job)
        return job

    jobs = run_in_order(range(1000), run, lambda job: True, 2)
    assert next(jobs) == (0, 0)
    with pytest.raises(KeyboardInterrupt):
        jobs.throw(KeyboardInterrupt())
    assert len(begun) <= 4
