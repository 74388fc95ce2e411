from django.http import HttpRequest, HttpResponse
from django.urls import include, path
from rest_framework.routers import SimpleRouter

from tests.doors import views

router = SimpleRouter()
router.register("api/concerts", views.ConcertViewSet)


def done(request: HttpRequest) -> HttpResponse:
    return HttpResponse("done")


urlpatterns = [
    path("", include("config.urls")),
    path("", include(router.urls)),
    path("done/", done),
    path("concerts/add/", views.AddConcert.as_view()),
    path("concerts/<int:pk>/change/", views.ChangeConcert.as_view()),
    path("festivals/<int:pk>/delete/", views.DeleteFestival.as_view()),
    path("festivals/<int:pk>/rename/", views.rename),
    path("festivals/<int:pk>/rename-by-itself/", views.rename_by_itself),
    path("festivals/<int:pk>/rename-async/", views.rename_async),
    path("festivals/<int:pk>/rename-in-sync-code/", views.rename_in_sync_code),
    path("musicians/<int:pk>/delete-async/", views.delete_async),
]
