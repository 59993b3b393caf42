"""`skystill tune` on a cluster: each worker runs the command itself, and all of them share the study."""

from collections.abc import Sequence

import optuna

from skystill.cluster.commands import host_name, run_on_each_worker
from skystill.cluster.connection import Connection, open_connection
from skystill.errors import SettingsError
from skystill.progress import Message, OnProgress, Progress
from skystill.settings import TuneSettings
from skystill.train.studies import check_trials, count_ended, keep_settings
from skystill.train.tune import (
    DATABASE_ERRORS,
    naming_database,
    next_action,
    open_study,
    where_it_goes_on,
    write_result,
)

_NEEDS = ("torch", "lightning_fabric", "optuna")


def run_study_on_cluster(settings: TuneSettings, arguments: Sequence[str], on_progress: OnProgress) -> optuna.Study:
    """Let the workers of a cluster run trials until the study has as many as the settings want, and write the result.

    Args:
        settings: settings of the command, which name a cluster.
        arguments: the same as arguments of the command line, without the cluster.
        on_progress: receives a `Progress` in trials.

    Returns:
        the study.

    Raises:
        ClusterError: the cluster is lost, a worker cannot be used, or its command failed.
        SettingsError: as `run_study`, or workers on other machines cannot share it.
    """
    settings.out.mkdir(parents=True, exist_ok=True)
    with naming_database(settings, DATABASE_ERRORS), open_connection(settings, on_progress, _NEEDS) as connection:
        _check_storage(settings, connection)
        study = open_study(settings)
        keep_settings(study, settings)
        check_trials(study, settings.out)
        on_progress(Message(where_it_goes_on(settings, study)))

        def count_wanted() -> int:
            ended = count_ended(study)
            on_progress(Progress("trials", min(ended, settings.trials), settings.trials, leaves_line=True))
            return 0 if next_action(study, settings.trials) == "end" else max(1, settings.trials - ended)

        command = ["-m", "skystill", "tune", *arguments]
        run_on_each_worker(connection, command, settings.out, count_wanted, on_progress)
        write_result(settings, study)
    return study


def _check_storage(settings: TuneSettings, connection: Connection) -> None:
    """Refuse a database in a file if workers on other machines would share it: SQLite's locks do not reach so far."""
    hosts = set(connection.client.run(host_name, on_error="ignore").values()) - {host_name()}
    if hosts and settings.storage is None:
        raise SettingsError(
            f"{settings.out / 'study.db'} cannot be shared with workers on other machines ({', '.join(sorted(hosts))})."
            " Give them one database with --storage, such as postgresql://HOST/NAME."
        )
