"""The doors of asynchronous code: awaited saves and deletions, and ``sync_to_async``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.test import AsyncClient

from tests.doors.models import Festival, Musician
from tests.doors.programme import (
    finished,
    held,
    names,
    new,
    new_programme,
    nothing_started,
    the_task,
    works,
)


@pytest.fixture
def post(async_client: AsyncClient) -> Callable[..., Any]:
    """Post as an asynchronous client does, through the asynchronous handler."""

    async def send(url: str, data: Any) -> Any:
        return await async_client.post(url, data)

    return async_to_sync(send)


@pytest.fixture
def user(async_client: AsyncClient) -> User:
    user = User.objects.create_user("ann")
    async_to_sync(_awaited(async_client.aforce_login))(user)
    return user


def _awaited(call: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
    async def wait(*arguments: Any) -> Any:
        return await call(*arguments)

    return wait


RENAME = ["rename-async", "rename-in-sync-code"]
MARKS = [pytest.mark.door("async view: asave(), adelete()"), pytest.mark.door("sync_to_async()")]
VIEWS = [pytest.param(name, marks=mark) for name, mark in zip(RENAME, MARKS, strict=True)]


@pytest.mark.parametrize("view", VIEWS)
def test_an_asynchronous_view_starts_the_work_of_what_it_saves(
    post: Callable[..., Any], user: User, view: str
) -> None:
    festival, *_ = new_programme()
    response = post(f"/festivals/{festival.pk}/{view}/", {"name": "autumn"})
    assert response.status_code == 200
    assert names(Festival) == ["autumn"]
    assert works(the_task()) == [("festival", "measure")]
    assert the_task().user == user
    assert finished(the_task()) == 8


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("number", [0, 1, 2], ids=["itself", "its concert", "its piece"])
def test_an_asynchronous_view_that_is_refused_is_a_409(
    post: Callable[..., Any], view: str, number: int
) -> None:
    programme = new_programme()
    task = held(programme[number])
    response = post(f"/festivals/{programme[0].pk}/{view}/", {"name": "autumn"})
    assert response.status_code == 409
    assert task.label in response.content.decode()
    assert names(Festival) == ["spring"]


@pytest.mark.door("async view: asave(), adelete()")
def test_an_asynchronous_view_deletes(post: Callable[..., Any]) -> None:
    ann = new(Musician, "Ann")
    assert post(f"/musicians/{ann.pk}/delete-async/", {}).status_code == 200
    assert names(Musician) == []
    assert nothing_started()


@pytest.mark.door("async view: asave(), adelete()")
def test_an_asynchronous_view_does_not_delete_what_is_held(post: Callable[..., Any]) -> None:
    ann = new(Musician, "Ann")
    held(ann)
    assert post(f"/musicians/{ann.pk}/delete-async/", {}).status_code == 409
    assert names(Musician) == ["Ann"]
