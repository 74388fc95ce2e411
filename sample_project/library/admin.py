# Django's admin classes take a type argument in their stubs only, not when they run.
# mypy: disable-error-code="type-arg"

from django.contrib import admin

from library.models import COUNTS, Author, Book, Genre, Review, Scene, Speech
from powercrud_models.mixins.admin import AsyncAdminMixin

admin.site.register(Author)
admin.site.register(Genre)


class SceneInline(admin.TabularInline):
    model = Scene
    fields = ["position", "act", "number", "title", *COUNTS]
    readonly_fields = COUNTS  # recount writes them, nobody else does
    show_change_link = True
    extra = 0


@admin.register(Book)
class BookAdmin(AsyncAdminMixin, admin.ModelAdmin):
    list_display = ["title", "genre", *COUNTS]
    list_filter = ["genre"]
    list_select_related = ["genre"]
    search_fields = ["title"]
    readonly_fields = COUNTS
    inlines = [SceneInline]


# No inline for its speeches: some scenes have hundreds, and a form that size exceeds Django's
# DATA_UPLOAD_MAX_NUMBER_FIELDS.
@admin.register(Scene)
class SceneAdmin(AsyncAdminMixin, admin.ModelAdmin):
    list_display = ["__str__", "book", "title", *COUNTS]
    list_filter = ["book"]
    list_select_related = ["book"]
    search_fields = ["title", "book__title"]
    autocomplete_fields = ["book"]
    readonly_fields = COUNTS


@admin.register(Speech)
class SpeechAdmin(AsyncAdminMixin, admin.ModelAdmin):
    list_display = ["speaker", "scene", "position", "words", "lines"]
    list_select_related = ["scene"]
    search_fields = ["speaker", "text"]
    autocomplete_fields = ["scene"]
    readonly_fields = ["words", "lines"]


@admin.register(Review)
class ReviewAdmin(admin.ModelAdmin):
    list_display = ["book", "reader", "rating", "created"]
    list_select_related = ["book"]
    autocomplete_fields = ["book"]
