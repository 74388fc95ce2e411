# Django's admin classes take a type argument in their stubs only, not when they run.
# mypy: disable-error-code="type-arg"

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from powercrud_models.mixins.admin import AsyncAdminMixin
from tests.doors.models import Concert, Festival, Musician, Piece, Sponsor


class ConcertInline(admin.TabularInline):
    model = Concert
    show_change_link = True
    extra = 0


class SponsorInline(admin.StackedInline):
    model = Sponsor
    extra = 0


class PieceInline(admin.TabularInline):
    model = Piece
    extra = 0


@admin.register(Festival)
class FestivalAdmin(AsyncAdminMixin, admin.ModelAdmin):
    inlines = [ConcertInline, SponsorInline]
    actions = ["forget_visits"]

    @admin.action
    def forget_visits(self, request: HttpRequest, queryset: QuerySet[Festival]) -> None:
        self.log_deletions(request, queryset)  # any write before the one that is refused
        for festival in queryset.order_by("pk"):
            festival.visits = 0
            festival.save()


@admin.register(Concert)
class ConcertAdmin(AsyncAdminMixin, admin.ModelAdmin):
    inlines = [PieceInline]


@admin.register(Sponsor)
class SponsorAdmin(AsyncAdminMixin, admin.ModelAdmin):
    list_display = ["pk", "name"]
    list_editable = ["name"]


@admin.register(Musician)
class MusicianAdmin(admin.ModelAdmin):
    """Without the mixin: what it refuses later than in a form is left to the middleware."""

    list_display = ["pk", "name"]
    list_editable = ["name"]
