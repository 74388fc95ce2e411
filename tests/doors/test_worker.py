"""The doors, with a real qcluster behind them: what the admin saves, a worker finishes."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from django.test import Client
from django.urls import reverse

from powercrud_models.models import ObjectLock
from tests.cluster import Cluster
from tests.doors.models import Concert, Festival, Musician, Piece
from tests.doors.programme import names, new, new_programme, the_task, works
from tests.gates import PATIENCE

pytestmark = pytest.mark.cluster


@pytest.fixture
def cluster(
    _real_transactions: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        cluster.start()
        yield cluster
        cluster.wait_until_idle()
    finally:
        cluster.stop()
        sys.stdout.write(cluster.log())


@pytest.mark.door("admin: add")
@pytest.mark.door("admin: change")
@pytest.mark.door("admin: inlines")
def test_what_two_pages_of_the_admin_have_saved_is_finished(
    cluster: Cluster, admin_client: Client
) -> None:
    ann, ben = new(Musician, "Ann"), new(Musician, "Ben")
    data = {
        "name": "spring",
        "visits": 0,
        "concerts-TOTAL_FORMS": 2,
        "concerts-INITIAL_FORMS": 0,
        "concerts-0-name": "opening",
        "concerts-0-musicians": [ann.pk, ben.pk],
        "concerts-1-name": "closing",
        "concerts-1-musicians": [ben.pk],
        "sponsors-TOTAL_FORMS": 0,
        "sponsors-INITIAL_FORMS": 0,
    }
    assert admin_client.post(reverse("admin:doors_festival_add"), data).status_code == 302
    assert the_task().result(timeout=PATIENCE) == [0, ["Ann", "Ben"], ["Ben"]]

    opening = Concert.objects.get(name="opening")
    the_task().delete()
    data = {
        "name": "gala",
        "festival": opening.festival_id,
        "musicians": [ben.pk],
        "pieces-TOTAL_FORMS": 2,
        "pieces-INITIAL_FORMS": 0,
        "pieces-0-name": "march",
        "pieces-0-minutes": 5,
        "pieces-1-name": "waltz",
        "pieces-1-minutes": 7,
    }
    url = reverse("admin:doors_concert_change", args=[opening.pk])
    assert admin_client.post(url, data).status_code == 302
    assert works(the_task()) == [("concert", "rehearse")]
    assert the_task().result(timeout=PATIENCE) == ["Ben"]

    assert names(Piece) == ["march", "waltz"]
    assert list(Concert.objects.order_by("pk").values_list("name", "rehearsals")) == [
        ("gala", 2),
        ("closing", 1),
    ]
    assert not ObjectLock.objects.exists()


@pytest.mark.door("async view: asave(), adelete()")
def test_what_a_request_has_saved_is_finished(cluster: Cluster, client: Client) -> None:
    festival, *_ = new_programme()
    response = client.post(f"/festivals/{festival.pk}/rename-async/", {"name": "autumn"})
    assert response.status_code == 200
    assert the_task().result(timeout=PATIENCE) == 8
    assert list(Festival.objects.values_list("name", "minutes")) == [("autumn", 8)]
