# Django's views take a type argument in their stubs only, not when they run; Django REST framework
# ships no types.
# mypy: disable-error-code="type-arg, misc"
"""Views as anybody writes them: none of them knows that objects can be held."""

from __future__ import annotations

from asgiref.sync import sync_to_async
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.views.generic import CreateView, DeleteView, UpdateView
from rest_framework.viewsets import ModelViewSet

from tests.doors.models import Concert, Festival, Musician
from tests.doors.serializers import ConcertSerializer

DONE = "/done/"


class AddConcert(CreateView):
    model = Concert
    fields = ["name", "festival", "musicians"]
    template_name = "doors/form.html"
    success_url = DONE


class ChangeConcert(UpdateView):
    model = Concert
    fields = ["name", "festival", "musicians"]
    template_name = "doors/form.html"
    success_url = DONE


class DeleteFestival(DeleteView):
    model = Festival
    template_name = "doors/form.html"
    success_url = DONE


class ConcertViewSet(ModelViewSet):
    queryset = Concert.objects.order_by("pk")
    serializer_class = ConcertSerializer


def rename(request: HttpRequest, pk: int) -> HttpResponse:
    """Two saves, and then an error where the request asks for one."""
    festival = get_object_or_404(Festival, pk=pk)
    festival.name = request.POST["name"]
    festival.save()
    for concert in festival.concerts.order_by("pk"):
        concert.save()
    if "error" in request.POST:
        raise ValueError(request.POST["error"])
    return HttpResponse(str(festival.async_task))


@transaction.non_atomic_requests
def rename_by_itself(request: HttpRequest, pk: int) -> HttpResponse:
    return rename(request, pk)


async def rename_async(request: HttpRequest, pk: int) -> HttpResponse:
    festival = await Festival.objects.aget(pk=pk)
    festival.name = request.POST["name"]
    await festival.asave()
    return HttpResponse(festival.name)


async def rename_in_sync_code(request: HttpRequest, pk: int) -> HttpResponse:
    @sync_to_async
    def rename_all() -> int:
        with transaction.atomic():
            festivals = Festival.objects.order_by("pk")
            for festival in festivals:
                festival.name = request.POST["name"]
                festival.save()
        return len(festivals)

    return HttpResponse(await rename_all())


async def delete_async(request: HttpRequest, pk: int) -> HttpResponse:
    musician = await Musician.objects.aget(pk=pk)
    await musician.adelete()
    return HttpResponse("deleted")
