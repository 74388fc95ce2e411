"""What the server sees: scripts that share a hash tag, in pieces that let others in between."""

from __future__ import annotations

import pytest

from powercrud_models.stores import get_store
from tests.deliveries import deliver, task_of
from tests.gates import until
from tests.kinds.models import Project
from tests.promises.made import effects, make_project
from tests.stores.asking import acquire, bolts, held, holders, many, refused, release
from tests.stores.redis_server import OwnServer


@pytest.mark.redis_options("--cluster-enabled", "yes")
def test_on_a_node_of_a_cluster_all_names_are_in_one_slot(server: OwnServer) -> None:
    """Which refuses a script whose names are in several."""
    server.client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
    client = server.client
    until(lambda: client.execute_command("CLUSTER INFO")["cluster_state"] == "ok", "it is up")
    store = get_store()
    acquire(store, "a", bolts(1, 2))
    assert refused(store, "b", bolts(2, 3)).keys() == bolts(2)
    assert held(store, "a") == bolts(1, 2)
    release(store, "a", bolts(1))
    release(store, "a")
    acquire(store, "b", many(5_000))
    release(store, "b")
    assert holders(store, many(5_000)) == {}


def test_no_script_has_many_objects(server: OwnServer) -> None:
    """Others are served between two of them."""
    server.client.config_set("slowlog-log-slower-than", 0)
    server.client.config_set("slowlog-max-len", 1_000)
    acquire(get_store(), "a", many(100_000))
    holders(get_store(), many(100_000))
    held(get_store(), "a")
    release(get_store(), "a", many(50_000))
    release(get_store(), "a")
    scripts = [
        entry for entry in server.client.slowlog_get(1_000) if entry["command"].startswith(b"EVAL")
    ]
    assert len(scripts) > 150


def test_what_follows_a_piece_that_is_refused_writes_nothing(server: OwnServer) -> None:
    """Others would run into locks that come to nothing."""
    keys = sorted(many(10_000))
    acquire(get_store(), "other", keys[:1])
    server.client.config_resetstat()
    assert refused(get_store(), "a", keys).keys() == {keys[0]}
    assert "cmdstat_hset" not in server.client.info("commandstats")


def test_a_server_that_has_forgotten_the_scripts_is_told_them_again(server: OwnServer) -> None:
    store = get_store()
    acquire(store, "a", bolts(1))
    server.client.script_flush()
    acquire(store, "a", bolts(2))
    server.client.script_flush()
    acquire(store, "a", many(5_000))
    assert len(held(store, "a")) == 5_000


@pytest.mark.redis_options("--dbfilename", "snapshot.rdb")
def test_a_restart_from_an_old_snapshot_is_noticed(server: OwnServer) -> None:
    """The epoch is still the same, and the number of objects may be."""
    project = make_project(parts=2)
    project.save()
    task = task_of(project)
    seen = []

    def work(project: Project) -> None:
        store = get_store()
        server.client.save()
        new = {*bolts("new")}
        acquire(store, task.key, new)
        server.restart()
        store.confirm(task.key, "default")
        seen.append(len(held(store, task.key)))

    Project.script = work
    deliver()
    assert seen == [4]
    assert effects(project) == 1
